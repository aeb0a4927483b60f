//! A host without a process of its own, for benches and for the test that counts allocations: a really
//! built plugin, a token that means it, and a browser's request.

use std::{
    fs,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use plugin_host::{
    http_client::{HttpClient, Settings},
    memory::MemoryBudget,
    pipeline::{
        Pipeline,
        call::CallBox,
        chain::Chain,
        gateway::{Gateway, Gone},
        pool::Pool,
        questions::{Answer, Question},
    },
    plugin::{
        manager::{Manager, Options},
        permissions::Permissions,
        registry::{Generation, Registry},
        settings::Operator,
    },
    server::{Limits, ResponseFailure, Shared, handover::Supervised},
    shared_memory::connections::ConnectionSlots,
    throttle::Throttle,
    tokens::{
        Bounds, ChainState, PluginConf, Prepared, Tokens,
        compile::{Compiler, keep_compiled},
    },
};
use plugin_proto::{
    Entry, FrameBuffer, FrameWriter, Method,
    http_req_call::{self, Request},
};
use tempfile::TempDir;
use tokio::{runtime::Handle, sync::mpsc, time::Instant};

#[path = "../../proto/benches/browser/mod.rs"]
mod browser;

use crate::libraries::built_alone;
use browser::HEADERS;

/// A configuration of `versioned` with which it sets one header and lets the request go on.
pub(crate) const ONE_HEADER: &str = r#"{"word": "w", "pass": true}"#;

/// Plugins that serve in this process.
pub(crate) struct Embedded {
    pub(crate) shared: Arc<Shared>,
    pub(crate) manager: Manager,
    _directory: TempDir,
}

impl Embedded {
    /// Loads a plugin as cargo builds it. On a runtime, which compiles chains as long as it runs.
    pub(crate) async fn load(plugin: &str) -> Self {
        let directory = tempfile::tempdir().expect("there is room for files");
        let plugin_dir = directory.path().join("plugins");
        let private_dir = directory.path().join("private");
        let own = plugin_dir.join(plugin);
        fs::create_dir_all(&own).expect("directories can be made");
        fs::create_dir(&private_dir).expect("directories can be made");
        let built = built_alone(plugin);
        let library = built.library.file_name().expect("a library is a file");
        fs::copy(&built.library, own.join(library)).expect("the library was built");
        fs::copy(&built.metadata, own.join("plugin.json")).expect("it has metadata");

        let (to_compile, new_tokens) = mpsc::unbounded_channel();
        let bounds = Bounds::new(100, Duration::from_secs(3_600));
        let tokens = Arc::new(Tokens::new(bounds, to_compile));
        let registry = Arc::new(Registry::new());
        let compiler = Arc::new(Compiler::new(Arc::clone(&registry), Arc::clone(&tokens)));
        tokio::spawn(keep_compiled(
            Arc::clone(&compiler),
            new_tokens,
            registry.subscribe(),
        ));
        let options = Options {
            plugin_dir,
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
        let manager = Manager::new(options, compiler);
        let loaded = manager.load_all().await;
        assert_eq!(loaded.serving.len(), 1, "{loaded:?}");
        Self {
            shared: Arc::new(shared(tokens)),
            manager,
            _directory: directory,
        }
    }

    /// A token for a chain of the plugin, as often as there are configurations.
    pub(crate) async fn prepare(&self, plugin: &str, configurations: &[&str]) -> u32 {
        let prepared = Prepared {
            key: (*b"route#1#ext-plugin-pre-req#1").into(),
            plugins: configurations
                .iter()
                .map(|configuration| PluginConf {
                    name: plugin.as_bytes().into(),
                    value: configuration.as_bytes().into(),
                })
                .collect(),
        };
        let token = self.shared.tokens.prepare(prepared, Instant::now());
        let token = token.expect("there are numbers left");
        self.chain(token).await;
        token
    }

    /// The chain that a token means, compiled.
    pub(crate) async fn chain(&self, token: u32) -> Arc<Chain> {
        let token = self.shared.tokens.find(token, Instant::now());
        let token = token.expect("it was prepared just now");
        match token.compiled().await {
            ChainState::Ready(chain) => chain,
            other => panic!("{other:?}"),
        }
    }

    /// The plugin itself.
    pub(crate) fn generation(&self, plugin: &str) -> Arc<Generation> {
        self.manager.get(plugin).expect("it was loaded")
    }
}

/// As `worker` wires it, below a supervisor who listens to nothing.
fn shared(tokens: Arc<Tokens>) -> Shared {
    let (events, _) = mpsc::unbounded_channel();
    Shared {
        tokens,
        pipeline: Pipeline {
            pool: Pool::new(Handle::current(), 1),
            call_budget: Duration::from_secs(10),
        },
        limits: Limits {
            max_connections: 10,
            max_frame_bytes: plugin_proto::frame::MAX_DATA_LEN,
            max_connection_memory: 1 << 20,
            max_extra_info_rounds: 64,
            spin: Duration::ZERO,
            frame_timeout: Duration::from_secs(10),
            ask_method_for_head: false,
            response_failure: ResponseFailure::Status503,
        },
        memory: MemoryBudget::new(1 << 20),
        throttle: Throttle::new(1, Duration::from_secs(1)),
        traffic: Arc::default(),
        access_log: None,
        connections: AtomicUsize::new(0),
        supervised: Some(Supervised {
            slots: ConnectionSlots::create(16, 1).expect("there is shared memory"),
            worker: 1,
            events,
        }),
    }
}

/// A browser's request with 12 headers and 2 arguments: a whole frame.
pub(crate) fn request(token: u32) -> Vec<u8> {
    let mut writer = FrameWriter::new();
    let request = Request {
        id: 7,
        src_ip: Some(&[203, 0, 113, 7]),
        method: Method::Get,
        path: b"/articles/2026/11/flatbuffers",
        args: [entry(("page", "2")), entry(("sort", "date"))],
        headers: HEADERS.map(entry),
        conf_token: token,
    };
    let frame = http_req_call::write_request(&mut writer, request);
    frame.expect("a small message").to_vec()
}

fn entry((name, value): (&'static str, &'static str)) -> Entry<'static> {
    Entry {
        name: name.as_bytes(),
        value: Some(value.as_bytes()),
    }
}

/// Puts a frame into a connection's buffer, as reading does.
pub(crate) fn receive(buffer: &mut FrameBuffer, frame: &[u8]) {
    buffer.spare()[..frame.len()].copy_from_slice(frame);
    buffer.filled(frame.len());
}

/// A call that has come in.
pub(crate) fn call(frame: &[u8]) -> CallBox {
    let mut incoming = FrameBuffer::new();
    receive(&mut incoming, frame);
    let mut call = CallBox::new();
    call.take_request(&mut incoming).expect("a valid message");
    call
}

/// A gateway that knows nothing.
pub(crate) struct Ignorant;

impl Gateway for Ignorant {
    async fn ask(&mut self, _: &Question) -> Result<Answer, Gone> {
        Ok(Answer::Absent)
    }
}
