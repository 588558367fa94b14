//! TLS in front of a server, with certificates that can be replaced.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// An authority that signs the server's certificate and those of clients.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

/// A certificate and its key, as PEM.
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// Its own certificate, as PEM.
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    fn sign(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_string()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// A certificate for a client.
    pub fn client(&self) -> Identity {
        let (certificate, key) = self.sign("node");
        Identity { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// What a server needs that takes only clients of this authority, or any.
    fn server(&self, clients_need_certificates: bool) -> Arc<ServerConfig> {
        let (certificate, key) = self.sign("127.0.0.1");
        let builder = if clients_need_certificates {
            let mut roots = RootCertStore::empty();
            roots.add(self.certificate.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
            ServerConfig::builder().with_client_cert_verifier(verifier)
        } else {
            ServerConfig::builder().with_no_client_auth()
        };
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Arc::new(builder.with_single_cert(vec![certificate.der().clone()], key).unwrap())
    }
}

/// Takes TLS connections and passes what is in them on. Dropping it ends it.
pub struct Front {
    address: SocketAddr,
    config: Arc<Mutex<Arc<ServerConfig>>>,
    clients_need_certificates: bool,
    cut: UnboundedSender<()>,
}

impl Front {
    /// In front of the server at `behind`.
    pub fn start(behind: SocketAddr, authority: &Authority, clients_need_certificates: bool) -> Self {
        let config = Arc::new(Mutex::new(authority.server(clients_need_certificates)));
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (cut, mut cuts) = unbounded_channel();
        let shared = Arc::clone(&config);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                let mut connections = JoinSet::new();
                loop {
                    tokio::select! {
                        accepted = listener.accept() => {
                            let config = Arc::clone(&shared.lock().unwrap());
                            connections.spawn(pass(accepted.unwrap().0, config, behind));
                        }
                        cut = cuts.recv() => match cut {
                            Some(()) => connections.abort_all(),
                            None => return,
                        },
                        Some(_) = connections.join_next() => {}
                    }
                }
            });
        });
        Self { address, config, clients_need_certificates, cut }
    }

    /// Another authority for everything; what is open is closed.
    pub fn replace(&self, authority: &Authority) {
        *self.config.lock().unwrap() = authority.server(self.clients_need_certificates);
        self.cut.send(()).unwrap();
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn pass(client: TcpStream, config: Arc<ServerConfig>, behind: SocketAddr) {
    let Ok(mut client) = TlsAcceptor::from(config).accept(client).await else { return };
    let Ok(mut server) = TcpStream::connect(behind).await else { return };
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}
