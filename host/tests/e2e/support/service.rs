//! Another service that plugins call: a real HTTP server on a port of its own, alone or over TLS,
//! which does what the path says and counts its connections.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response,
    body::{Bytes, Frame, Incoming},
    rt::{Read, Write},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::oneshot};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{PrivateKeyDer, pem::PemObject},
    },
};

/// A service that is there until it is dropped.
///
/// | path | what it does |
/// |---|---|
/// | `/echo` | answers with method, path and query, headers and body |
/// | `/status/N` | answers with that status |
/// | `/bytes/N` | answers with so many bytes |
/// | `/pieces/N/MS` | answers with so many pieces of 1,000 bytes, each after so many milliseconds, and says no length |
/// | `/slow/MS` | answers after so many milliseconds |
/// | `/header/N` | answers with a header of so many bytes |
/// | `/headers/N` | answers with so many headers |
/// | `/once` | answers, and closes the connection when it is used again |
pub(crate) struct Service {
    address: SocketAddr,
    scheme: &'static str,
    counts: Arc<Counts>,
    _stop: oneshot::Sender<()>,
}

#[derive(Default)]
struct Counts {
    accepted: AtomicUsize,
    open: AtomicUsize,
    requests: AtomicUsize,
    /// Requests whose answer nobody waited for.
    abandoned: AtomicUsize,
}

/// A certificate authority of a test, and its file.
pub(crate) struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        // Another name than those that it vouches for have.
        let name = "authority of a test";
        parameters
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = parameters.self_signed(&key).unwrap().pem();
        Self {
            issuer: rcgen::Issuer::new(parameters, key),
            pem,
        }
    }

    /// Writes its certificate into a directory.
    pub(crate) fn file(&self, directory: &Path) -> PathBuf {
        let file = directory.join("ca.pem");
        std::fs::write(&file, &self.pem).unwrap();
        file
    }

    /// A certificate for a server of these names, and its key.
    pub(crate) fn vouch_for(&self, names: &[&str]) -> (rcgen::Certificate, rcgen::KeyPair) {
        let key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let parameters = rcgen::CertificateParams::new(names).unwrap();
        (parameters.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// TLS for a server of these names.
    pub(crate) fn tls(&self, names: &[&str]) -> Arc<ServerConfig> {
        let (certificate, key) = self.vouch_for(names);
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        Arc::new(config)
    }
}

impl Service {
    pub(crate) fn start() -> Self {
        Self::with(None)
    }

    /// One with a certificate of this authority for this name.
    pub(crate) fn start_tls(authority: &Authority, name: &str) -> Self {
        Self::with(Some(TlsAcceptor::from(authority.tls(&[name]))))
    }

    fn with(tls: Option<TlsAcceptor>) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let counts: Arc<Counts> = Arc::default();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = serve(listener, tls, Arc::clone(&counts));
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = serving => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            address,
            scheme,
            counts,
            _stop: stop,
        }
    }

    /// The URL of a path of it.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url_of("127.0.0.1"))
    }

    /// Its URL under another name of this machine.
    pub(crate) fn url_of(&self, name: &str) -> String {
        format!("{}://{name}:{}", self.scheme, self.address.port())
    }

    /// Connections that it has accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        self.counts.accepted.load(Ordering::SeqCst)
    }

    /// Connections that are open.
    pub(crate) fn open(&self) -> usize {
        self.counts.open.load(Ordering::SeqCst)
    }

    /// Requests that have come.
    pub(crate) fn requests(&self) -> usize {
        self.counts.requests.load(Ordering::SeqCst)
    }

    /// Requests whose client went away before they were answered.
    pub(crate) fn abandoned(&self) -> usize {
        self.counts.abandoned.load(Ordering::SeqCst)
    }
}

async fn serve(listener: std::net::TcpListener, tls: Option<TlsAcceptor>, counts: Arc<Counts>) {
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        counts.accepted.fetch_add(1, Ordering::SeqCst);
        counts.open.fetch_add(1, Ordering::SeqCst);
        let (tls, counts) = (tls.clone(), Arc::clone(&counts));
        tokio::spawn(async move {
            match tls {
                None => connection(TokioIo::new(stream), &counts).await,
                // A client that does not trust it goes away.
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        connection(TokioIo::new(stream), &counts).await;
                    }
                }
            }
            counts.open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

async fn connection(stream: impl Read + Write + Unpin, counts: &Arc<Counts>) {
    let before = AtomicUsize::new(0);
    let service =
        service_fn(|request| answer(request, before.fetch_add(1, Ordering::SeqCst), counts));
    // An error is a client that goes away, or one of this service's misdeeds.
    let _ = http1::Builder::new()
        .max_buf_size(1 << 20)
        .serve_connection(stream, service)
        .await;
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Counts a request whose future is dropped before its end.
struct Abandoned<'a>(&'a Counts, bool);

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        if !self.1 {
            self.0.abandoned.fetch_add(1, Ordering::SeqCst);
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    before: usize,
    counts: &Arc<Counts>,
) -> io::Result<Response<Body>> {
    counts.requests.fetch_add(1, Ordering::SeqCst);
    let mut abandoned = Abandoned(counts, false);
    let path = request.uri().path().to_owned();
    let words: Vec<&str> = path.split('/').skip(1).collect();
    let number = |index: usize| words[index].parse::<usize>().unwrap();
    let full = |bytes: Vec<u8>| Full::new(Bytes::from(bytes)).boxed_unsync();
    let response = match words[0] {
        "echo" => Response::new(full(echo(request).await)),
        "status" => {
            let mut response = Response::new(full(Vec::new()));
            *response.status_mut() = words[1].parse().unwrap();
            response
        }
        "bytes" => Response::new(full(vec![b'x'; number(1)])),
        "pieces" => Response::new(pieces(number(1), number(2))),
        "slow" => {
            tokio::time::sleep(Duration::from_millis(number(1) as u64)).await;
            Response::new(full(b"slow".to_vec()))
        }
        "header" => {
            let mut response = Response::new(full(Vec::new()));
            let value = "x".repeat(number(1)).parse().unwrap();
            response.headers_mut().insert("x-long", value);
            response
        }
        "headers" => {
            let mut response = Response::new(full(Vec::new()));
            for _ in 0..number(1) {
                response
                    .headers_mut()
                    .append("x-many", "x".parse().unwrap());
            }
            response
        }
        "once" if before > 0 => return Err(io::Error::other("closed without an answer")),
        "once" => Response::new(full(b"once".to_vec())),
        other => panic!("the service does not know /{other}"),
    };
    abandoned.1 = true;
    Ok(response)
}

async fn echo(request: Request<Incoming>) -> Vec<u8> {
    let (head, body) = request.into_parts();
    let headers: BTreeMap<_, _> = head
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
        .collect();
    let body = body.collect().await.unwrap().to_bytes();
    let body = String::from_utf8_lossy(&body);
    format!("{} {} {headers:?} {body}", head.method, head.uri).into_bytes()
}

fn pieces(count: usize, milliseconds: usize) -> Body {
    let stream = futures_util::stream::unfold(0, move |sent| async move {
        if sent == count {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(milliseconds as u64)).await;
        let piece = Bytes::from(vec![b'x'; 1_000]);
        Some((Ok(Frame::data(piece)), sent + 1))
    });
    StreamBody::new(stream).boxed_unsync()
}
