//! Plugins that ask another service in each call: over HTTP with the host's client, over HTTP with a
//! client in their own tokio, and Redis in their own tokio; beside one that asks nobody.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{Plan, progress};
use crate::{
    calls::{Exchange, Phase, RecordedCall, Replies},
    load::{Load, Pace},
    measurement::{Measurement, measure},
    servers::{Built, PluginCopy, Server},
};

const CONNECTIONS: [usize; 2] = [1, 64];

/// The session of the recorded browser.
const SESSION: &str = "HSET session:4f3c2a1b9e8d7c6f5a4b3c2d1e0f user ada\r\n";

/// What a case measures, the plugin, and its configuration.
type Case = (&'static str, &'static str, String);

pub(super) fn run(plan: &Plan, built: &Built) -> Result<Vec<Measurement>> {
    let service = Service::start()?;
    let redis = Redis::start()?;
    let settings = redis.directory.path().join("host.toml");
    fs::write(
        &settings,
        format!(
            "[plugins.redis-session.settings]\nurl = \"redis+unix://{}\"\nprefix = \"session:\"\ntimeout_ms = 5000\n",
            redis.socket().display()
        ),
    )?;
    let plugins = ["outgoing", "redis-session", "tokio-user"].map(PluginCopy::of);
    let flags = [format!("--config={}", settings.display())];
    let host = Server::host("plugin-host", built, &plugins, &flags)?;
    let url = format!("http://{}/", service.address);
    let cases: [Case; 5] = [
        ("nobody is asked", "outgoing", "{}".to_owned()),
        (
            "nobody is asked, tokio around the plugin",
            "tokio-user",
            r#"{"steps": []}"#.to_owned(),
        ),
        (
            "HTTP, the host's client",
            "outgoing",
            serde_json::json!({ "url": url }).to_string(),
        ),
        (
            "HTTP, hyper's client in the plugin's tokio",
            "tokio-user",
            serde_json::json!({ "steps": [{ "http": url }] }).to_string(),
        ),
        (
            "Redis, in the plugin's tokio",
            "redis-session",
            r#"{"headers": {"x-user": "user"}}"#.to_owned(),
        ),
    ];
    let calls: Vec<_> = cases
        .iter()
        .map(|case| prepared(&host, case).with_context(|| format!("{}:\n{}", case.0, host.log())))
        .collect::<Result<_>>()?;
    ensure!(
        service.requests() == 2,
        "not every plugin has asked the service"
    );
    let replies = Replies::default();
    let mut measurements = Vec::new();
    for connections in CONNECTIONS {
        let loads: Vec<_> = calls
            .iter()
            .map(|call| Load {
                connections,
                pace: Pace::Closed,
                warm_up: plan.warm_up,
                duration: plan.duration,
                calls: std::slice::from_ref(call),
                replies: &replies,
            })
            .collect();
        let named = cases.iter().zip(&loads);
        let mut of_cases: Vec<_> = named
            .map(|((name, ..), load)| Measurement::new(name, load))
            .collect();
        for _ in 0..plan.rounds {
            for (load, measurement) in loads.iter().zip(&mut of_cases) {
                progress(&format!(
                    "{}, {connections} connections",
                    measurement.server
                ));
                let sample = measure(&host, load).with_context(|| host.log())?;
                measurement.samples.push(sample);
            }
        }
        measurements.append(&mut of_cases);
    }
    Ok(measurements)
}

/// A call that has been answered once.
fn prepared(host: &Server, (name, plugin, configuration): &Case) -> Result<Vec<u8>> {
    let mut exchange = Exchange::open(&host.socket)?;
    let token = exchange.prepare(&format!("route#{name}#pre#1"), plugin, configuration)?;
    let call = RecordedCall::load("say-browser", Phase::Request)?.with_token(token)?;
    exchange.call(&call, &Replies::default())?;
    Ok(call)
}

/// An HTTP server that answers everything with two bytes.
struct Service {
    address: std::net::SocketAddr,
    requests: Arc<AtomicU64>,
}

impl Service {
    /// It ends with this process.
    fn start() -> Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let requests: Arc<AtomicU64> = Arc::default();
        let counted = Arc::clone(&requests);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        thread::spawn(move || runtime.block_on(serve(listener, counted)));
        Ok(Self { address, requests })
    }

    fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

async fn serve(listener: std::net::TcpListener, requests: Arc<AtomicU64>) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        // An end of the connection is the client's affair.
        tokio::spawn(answer(stream, Arc::clone(&requests)));
    }
}

async fn answer(mut stream: TcpStream, requests: Arc<AtomicU64>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut request = Vec::new();
    while stream.read_buf(&mut request).await? > 0 {
        // They come without a body, one after the other.
        if request.ends_with(b"\r\n\r\n") {
            requests.fetch_add(1, Ordering::Relaxed);
            request.clear();
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            stream.write_all(answer).await?;
        }
    }
    Ok(())
}

/// A Redis on a socket in a directory of its own.
struct Redis {
    directory: TempDir,
    process: Child,
}

impl Redis {
    fn start() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("bench").tempdir()?;
        let process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no"])
            .arg("--unixsocket")
            .arg(directory.path().join("r"))
            .arg("--dir")
            .arg(directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("redis-server: scripts/install-tools --tests installs it")?;
        let redis = Self { directory, process };
        let end = Instant::now() + Duration::from_secs(10);
        while let Err(error) = put(&redis.socket()) {
            ensure!(Instant::now() < end, "Redis does not answer: {error:#}");
            thread::sleep(Duration::from_millis(10));
        }
        Ok(redis)
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("r")
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Puts the session in.
fn put(socket: &Path) -> Result<()> {
    use std::io::{Read, Write};

    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(SESSION.as_bytes())?;
    let mut answer = [0; 64];
    let read = stream.read(&mut answer)?;
    ensure!(
        answer[..read].starts_with(b":"),
        "it does not take a session"
    );
    Ok(())
}
