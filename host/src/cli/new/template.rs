//! The templates: files of real crates, with the names of a new one put in.

use clap::ValueEnum;

use super::name::Names;

/// What a new plugin begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Template {
    /// Greets on one path, marks everything else: both phases, one option
    Default,
    /// Answers in place of the upstream
    Stop,
    /// Changes path, headers and arguments of requests
    RewriteRequest,
    /// Changes headers and text of responses
    RewriteResponse,
    /// Asks another service who it is, and keeps out whom it does not know
    Authenticate,
    /// Counts each client's requests and refuses those beyond a limit
    Limit,
    /// Logs each response with its request
    Log,
    /// Does what an operator asks for with plugin-host exec: closes its routes, and opens them
    Execute,
    /// Serves HTTP clients of its own, at routes in plugin.json
    HttpService,
}

/// The files of one template; the others are common to all.
struct Files {
    lib: &'static str,
    tests: &'static str,
    end_to_end: &'static str,
    plugin_json: &'static str,
    routes: &'static str,
}

macro_rules! files {
    ($name:literal) => {
        Files {
            lib: file!($name, "/src/lib.rs"),
            tests: file!($name, "/src/tests.rs"),
            end_to_end: file!($name, "/tests/end_to_end.rs"),
            plugin_json: file!($name, "/plugin.json"),
            routes: file!($name, "/apisix.yaml"),
        }
    };
}

macro_rules! file {
    ($name:literal, $path:literal) => {
        include_str!(concat!("../../../templates/", $name, $path))
    };
}

impl Template {
    /// All files of a new crate, by their path in it.
    pub(super) fn files(self, names: &Names, plugin_abi: &str) -> Vec<(&'static str, String)> {
        let own = self.own();
        let description = description(own.plugin_json);
        let put_in = |text: &str| {
            text.replace("my-plugin", &names.package)
                .replace("my_plugin", &names.library)
                .replace("MyPlugin", &names.ty)
                .replace("@description@", &description)
                .replace("@plugin-abi@", plugin_abi)
                .replace("@dev@", self.dev_arguments())
                .replace("@try@", &self.try_it(names))
        };
        [
            ("Cargo.toml", file!("common", "/Cargo.toml.in")),
            ("README.md", file!("common", "/README.md")),
            (".gitignore", file!("common", "/gitignore")),
            ("src/lib.rs", own.lib),
            ("src/tests.rs", own.tests),
            ("tests/end_to_end.rs", own.end_to_end),
            ("plugin.json", own.plugin_json),
            ("apisix.yaml", own.routes),
        ]
        .map(|(path, text)| (path, put_in(text)))
        .into()
    }

    /// What `plugin-host dev DIR` is told beside the directory.
    pub(super) fn dev_arguments(self) -> &'static str {
        match self {
            Self::HttpService => " -- --http-listen 127.0.0.1:8080",
            _ => "",
        }
    }

    /// A command with which one sees what it does.
    pub(super) fn try_it(self, names: &Names) -> String {
        let path = match self {
            Self::Default => "/hello",
            Self::Stop => "/shop/cart",
            Self::RewriteRequest => "/api/orders?token=secret&q=1",
            Self::RewriteResponse => "/old/page",
            Self::Authenticate | Self::Limit | Self::Log => "/",
            Self::Execute => {
                return format!(
                    "plugin-host exec {} --label switch --set closed=true --runtime-dir DIR   # which `dev` says",
                    names.package
                );
            }
            Self::HttpService => {
                return "curl -i -X PUT -d milk http://127.0.0.1:8080/notes/shopping".to_owned();
            }
        };
        format!("curl -i 'http://127.0.0.1:9080{path}'")
    }

    fn own(self) -> Files {
        match self {
            Self::Default => files!("default"),
            Self::Stop => files!("stop"),
            Self::RewriteRequest => files!("rewrite-request"),
            Self::RewriteResponse => files!("rewrite-response"),
            Self::Authenticate => files!("authenticate"),
            Self::Limit => files!("limit"),
            Self::Log => files!("log"),
            Self::Execute => files!("execute"),
            Self::HttpService => files!("http-service"),
        }
    }
}

fn description(plugin_json: &str) -> String {
    let metadata: serde_json::Value =
        serde_json::from_str(plugin_json).expect("a template's plugin.json is JSON");
    let description = metadata["description"].as_str();
    description.expect("a template describes itself").to_owned()
}
