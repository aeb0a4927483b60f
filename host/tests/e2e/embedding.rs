//! The plugin manager in another program than the host: this test binary loads really built plugins
//! into its own process, and calls them without any socket.

use std::{sync::Arc, time::Duration};

use plugin_host::{
    http_client::{HttpClient, Settings},
    pipeline::{
        End, Pipeline,
        call::CallBox,
        gateway::{Gateway, Gone},
        pool::Pool,
        questions::{Answer, Question},
    },
    plugin::{
        manager::{CallError, Manager, Options, RollbackError, Vetoes},
        permissions::Permissions,
        registry::Registry,
        settings::Operator,
    },
    tokens::{Bounds, PluginConf, Prepared, Token, Tokens, compile::Compiler},
};
use plugin_proto::FrameBuffer;
use serde_json::json;
use tempfile::TempDir;
use tokio::{runtime::Handle, sync::mpsc, time::Instant};

use crate::{
    message::Message,
    support::{
        PATIENCE, frame,
        versions::{Files, version},
    },
};

/// A gateway that knows one variable.
struct Variable(&'static str, &'static str);

impl Gateway for Variable {
    async fn ask(&mut self, question: &Question) -> Result<Answer, Gone> {
        Ok(match question {
            Question::Variable(name) if **name == *self.0.as_bytes() => {
                Answer::Value(self.1.as_bytes().into())
            }
            _ => Answer::Absent,
        })
    }
}

/// A manager, its live configurations, and the directory of its plugins.
struct Embedded {
    manager: Manager,
    tokens: Arc<Tokens>,
    /// Nobody compiles new tokens here: chains are made when what serves changes.
    _to_compile: mpsc::UnboundedReceiver<Arc<Token>>,
    directory: TempDir,
}

impl Embedded {
    /// With versions of `versioned`, each in its directory; nothing is loaded yet.
    fn with(versions: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let plugins = directory.path().join("plugins");
        for (place, number) in versions {
            version(number).write(&plugins.join(place));
        }
        let private_dir = directory.path().join("private");
        std::fs::create_dir(&private_dir).unwrap();
        let (to_compile, _to_compile) = mpsc::unbounded_channel();
        let bounds = Bounds::new(100, Duration::from_secs(3_600));
        let tokens = Arc::new(Tokens::new(bounds, to_compile));
        let compiler = Compiler::new(Arc::new(Registry::new()), Arc::clone(&tokens));
        let options = Options {
            plugin_dir: plugins,
            private_dir,
            operator: Operator::default(),
            rehearse_with: None,
            permissions: Permissions::new(false),
            trust: Arc::default(),
            announce: None,
            events: None,
            kept_dir: None,
            retired_memory: u64::MAX,
            metrics: Arc::default(),
            http_client: HttpClient::new(Settings::default()),
        };
        Self {
            manager: Manager::new(options, Arc::new(compiler)),
            tokens,
            _to_compile,
            directory,
        }
    }

    /// Replaces the files of the only plugin and loads it.
    async fn upgrade(&self, next: Files, vetoes: Vetoes) -> Result<(), String> {
        next.write(&self.directory.path().join("plugins/versioned"));
        let mut found = self.manager.discover().await.found;
        let candidate = found.pop().expect("what was written is fit");
        let loaded = self.manager.load(candidate, vetoes).await;
        loaded.map(|_| ()).map_err(|error| error.to_string())
    }

    /// Calls a plugin with `{"word": "w"}` and a variable to ask for; what it answers.
    async fn call(&self, requested: &str) -> Result<String, CallError> {
        let configuration = json!({ "word": "w", "ask": "route_id" }).to_string();
        let pipeline = Pipeline {
            pool: Pool::new(Handle::current(), 4),
            call_budget: Duration::from_secs(10),
        };
        let mut gateway = Variable("route_id", "7");
        let ended = self
            .manager
            .call(
                requested,
                configuration.as_bytes(),
                &pipeline,
                request(),
                &mut gateway,
            )
            .await?;
        let End::Stopped(_, reply) = ended else {
            panic!("{ended:?}");
        };
        Ok(String::from_utf8_lossy(&reply.headers[0].value).into_owned())
    }

    /// The version that a route which names the plugin so would get.
    fn serving(&self, requested: &str) -> Option<String> {
        let generation = self.manager.get(requested).ok()?;
        Some(generation.version().to_string())
    }

    /// Waits until so many retired generations are unloaded, and none waits for it.
    async fn unloaded(&self, number: usize) {
        let unloaded = async {
            loop {
                let retired = self.manager.status().retired;
                if (retired.draining, retired.unloaded, retired.stuck) == (0, number, 0) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, unloaded).await.unwrap();
    }
}

/// `GET /` as it comes from a gateway.
fn request() -> CallBox {
    let bytes = frame(&Message::RequestCall {
        id: 1,
        src_ip: Some((&[127, 0, 0, 1][..]).into()),
        method: 0,
        path: "/".into(),
        args: Vec::new(),
        headers: Vec::new(),
        conf_token: 1,
    });
    let mut incoming = FrameBuffer::new();
    incoming.spare()[..bytes.len()].copy_from_slice(&bytes);
    incoming.filled(bytes.len());
    let mut call = CallBox::new();
    call.take_request(&mut incoming).unwrap();
    call
}

#[tokio::test]
async fn everything_is_loaded_and_found_by_name_and_requirement_and_called() {
    let embedded = Embedded::with(&[("versioned@1.2.0", "1.2.0"), ("versioned@2.0.0", "2.0.0")]);
    let loaded = embedded.manager.load_all().await;
    assert_eq!(loaded.serving.len(), 2);
    assert!(loaded.problems.is_empty() && loaded.failures.is_empty());

    for (requested, serving) in [
        ("versioned", Some("2.0.0")),
        ("versioned@^1.2", Some("1.2.0")),
        ("versioned@^3", None),
        ("nobody", None),
    ] {
        assert_eq!(embedded.serving(requested).as_deref(), serving);
        match embedded.call(requested).await {
            Ok(answered) => assert_eq!(Some(answered.as_str()), serving),
            Err(error) => {
                assert!(matches!(error, CallError::Missing(_)), "{error}");
                assert_eq!(serving, None);
            }
        }
    }
}

#[tokio::test]
async fn a_live_configuration_vetoes_a_version_unless_it_is_overruled() {
    let embedded = Embedded::with(&[("versioned", "1.0.0")]);
    let live = Prepared {
        key: (*b"route#1#pre#1").into(),
        plugins: [PluginConf {
            name: b"versioned"[..].into(),
            value: br#"{"word": "live"}"#[..].into(),
        }]
        .into(),
    };
    embedded.tokens.prepare(live, Instant::now()).unwrap();
    embedded.manager.load_all().await;
    // What serves first serves without a look at the routes; the next makes their chains.
    embedded
        .upgrade(version("1.1.0"), Vetoes::Count)
        .await
        .unwrap();

    let refusing = version("1.2.0").settings(json!({ "refuse": "live" }));
    let vetoed = embedded
        .upgrade(refusing.clone(), Vetoes::Count)
        .await
        .unwrap_err();
    assert!(vetoed.contains("route#1#pre#1"), "{vetoed}");
    assert_eq!(embedded.serving("versioned").unwrap(), "1.1.0");
    embedded.unloaded(2).await;

    embedded.upgrade(refusing, Vetoes::Overruled).await.unwrap();
    assert_eq!(embedded.serving("versioned").unwrap(), "1.2.0");
    embedded.unloaded(3).await;
}

#[tokio::test]
async fn a_roll_back_needs_no_file_and_what_is_unloaded_is_missing() {
    let embedded = Embedded::with(&[("versioned", "1.0.0")]);
    let manager = &embedded.manager;
    manager.load_all().await;
    let nothing = manager.rollback("versioned", Vetoes::Count, None).await;
    assert!(matches!(nothing, Err(RollbackError::NothingBefore(_))));

    embedded
        .upgrade(version("2.0.0"), Vetoes::Count)
        .await
        .unwrap();
    embedded.unloaded(1).await;
    std::fs::remove_dir_all(embedded.directory.path().join("plugins")).unwrap();
    let back = manager
        .rollback("versioned", Vetoes::Count, None)
        .await
        .unwrap();
    assert_eq!(back.version().to_string(), "1.0.0");
    drop(back);
    assert_eq!(embedded.call("versioned").await.unwrap(), "1.0.0");
    embedded.unloaded(2).await;

    manager.unload("versioned").await.unwrap();
    assert_eq!(embedded.serving("versioned"), None);
    assert!(manager.unload("nobody").await.is_err());
    embedded.unloaded(3).await;
    let status = manager.status();
    assert_eq!(status.plugins.len(), 1);
    assert_eq!(status.plugins[0].name.as_deref(), Some("versioned"));
    assert_eq!(status.plugins[0].serving, None);
    assert_eq!(status.plugins[0].previous.as_deref(), Some("1.0.0"));
}

#[tokio::test]
async fn everything_can_be_unloaded_at_once() {
    let embedded = Embedded::with(&[("versioned@1.0.0", "1.0.0"), ("versioned@2.0.0", "2.0.0")]);
    let loaded = embedded.manager.load_all().await;
    assert_eq!(loaded.serving.len(), 2);
    drop(loaded);
    embedded.manager.unload_all().await;
    assert_eq!(embedded.serving("versioned@^1"), None);
    assert_eq!(embedded.serving("versioned"), None);
    embedded.unloaded(2).await;
}
