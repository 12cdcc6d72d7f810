//! gRPC over TCP: who connects, who may do what, and certificates that change.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use sabot_testkit::wait::wait_until;
use sabot_testkit::{Daemon, DaemonOptions};
use serde_json::Value;

use crate::pki::{Authority, Identity, replace};
use crate::scene::{LOOK, NOT_REACHABLE, PATIENCE, REFUSED, Scene, USAGE, assert_says, stderr, with_words};

const ADDRESS: &str = "127.0.0.1:9465";
/// What an HTTP/2 client begins with, and its empty settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A daemon that serves TCP, and its authority.
struct Served {
    scene: Scene,
    authority: Authority,
}

impl Served {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let authority = Authority::new(folder.path(), "authority");
        let server = authority.issue(folder.path(), "server", "sabotd", &["127.0.0.1"]);
        let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let flags = [
            ("--listen", ADDRESS.to_owned()),
            ("--tls-cert", path(&server.certificate)),
            ("--tls-key", path(&server.key)),
            ("--tls-client-ca", path(&authority.file)),
            ("--tls-operator", "olga".to_owned()),
            ("--tls-viewer", "vera.example.org".to_owned()),
        ];
        let flags: Vec<&str> = flags
            .iter()
            .flat_map(|(flag, value)| [*flag, value.as_str()])
            .collect();
        let scene = Scene::in_folder(folder, 2, &flags);
        Self { scene, authority }
    }

    fn folder(&self) -> &Path {
        self.scene.folder.path()
    }

    fn identity(&self, common: &str, names: &[&str]) -> Identity {
        self.authority.issue(self.folder(), common, common, names)
    }

    /// `sabot` over TCP, inside the node's namespace.
    fn command(&self, who: &Identity, authority: &Path, line: &str) -> std::process::Command {
        let sabot = DaemonOptions::built().expect("it is built").sabot;
        let mut command = self.scene.lab.node().command(&sabot.to_string_lossy());
        command.args(["--server", ADDRESS, "--tls-ca"]).arg(authority);
        command.arg("--tls-cert").arg(&who.certificate);
        command.arg("--tls-key").arg(&who.key);
        with_words(command, line)
    }

    fn sabot(&self, who: &Identity, line: &str) -> Output {
        let mut command = self.command(who, &self.authority.file, line);
        command.output().expect("sabot runs")
    }

    fn partition(&self) -> String {
        let target = self.scene.lab.pod(0).target();
        format!("partition --target {target} --for 60s --name cut")
    }

    fn connect(&self) -> TcpStream {
        let stream = self.scene.lab.node().run(|| TcpStream::connect(ADDRESS));
        let stream = stream.expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("it is set");
        stream
    }

    /// What somebody without a certificate sees: the server's one, and what came after the handshake.
    fn stranger(&self, trusted: &Path) -> Result<(CertificateDer<'static>, Vec<u8>), String> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(trusted).expect("a PEM file") {
            roots
                .add(certificate.expect("a certificate"))
                .expect("an authority");
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("they are")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = ServerName::try_from("127.0.0.1").expect("an address");
        let mut connection = ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut stream = self.connect();
        while connection.is_handshaking() {
            connection
                .complete_io(&mut stream)
                .map_err(|error| error.to_string())?;
        }
        let certificates = connection.peer_certificates().expect("it has shown them");
        let certificate = certificates[0].clone().into_owned();
        let mut tls = rustls::Stream::new(&mut connection, &mut stream);
        let mut said = Vec::new();
        // Whether writing fails depends on who is faster; what counts is what comes.
        let _ = tls.write_all(PREFACE).and_then(|()| tls.flush());
        let _ = tls.read_to_end(&mut said);
        Ok((certificate, said))
    }
}

#[test]
fn an_operator_may_do_everything() {
    let served = Served::new();
    let olga = served.identity("olga", &[]);
    assert_eq!(served.sabot(&olga, "node").status.code(), Some(0));
    let applied = served.sabot(&olga, &served.partition());
    assert_eq!(applied.status.code(), Some(0), "{}", stderr(&applied));
    assert!(!served.scene.answers(0, 1));
    let deleted = served.sabot(&olga, "delete cut");
    assert_eq!(deleted.status.code(), Some(0), "{}", stderr(&deleted));
    assert!(served.scene.answers(0, 1));
}

#[test]
fn a_viewer_may_look_and_nothing_else() {
    let served = Served::new();
    // By an alternative name.
    let vera = served.identity("Vera", &["vera.example.org"]);
    for line in ["get", "node", "targets", "trace"] {
        let output = served.sabot(&vera, line);
        assert_eq!(output.status.code(), Some(0), "{line}: {}", stderr(&output));
    }
    let preview = served.sabot(&vera, &format!("{} --dry-run", served.partition()));
    assert_eq!(preview.status.code(), Some(0), "{}", stderr(&preview));

    served.scene.ok(&served.partition());
    let before = served.scene.faults();
    let another = served.partition().replace("--name cut", "--name another");
    for (line, method) in [
        (another.as_str(), "ApplyFault"),
        ("delete cut", "DeleteFault"),
        ("delete --all", "DeleteAllFaults"),
        ("trace add --process etcd", "SetTracing"),
    ] {
        let output = served.sabot(&vera, line);
        assert_says(&output, REFUSED, &["vera.example.org", "viewer", method]);
    }
    assert_eq!(served.scene.faults(), before);
    assert!(!served.scene.answers(0, 1));
}

#[test]
fn a_certificate_without_a_role_may_do_nothing() {
    let served = Served::new();
    let nobody = served.identity("nobody", &["nobody.example.org"]);
    for line in ["get", "node", &served.partition()] {
        assert_says(&served.sabot(&nobody, line), REFUSED, &["nobody", "no role"]);
    }
}

#[test]
fn nobody_connects_with_a_wrong_certificate_or_without_one() {
    let served = Served::new();
    // One of another authority that says it is the operator.
    let elsewhere = Authority::new(served.folder(), "elsewhere");
    let wrong = elsewhere.issue(served.folder(), "wrong", "olga", &[]);
    let output = served.sabot(&wrong, &served.partition());
    assert_says(&output, NOT_REACHABLE, &[ADDRESS]);
    // And one of ours that doesn't trust the server.
    let olga = served.identity("olga", &[]);
    let mut command = served.command(&olga, &elsewhere.file, "get");
    assert_says(
        &command.output().expect("it runs"),
        NOT_REACHABLE,
        &[ADDRESS, "certificate"],
    );

    let (_, said) = served
        .stranger(&served.authority.file)
        .expect("the server shows its certificate");
    assert!(
        said.is_empty(),
        "something was served without a certificate: {said:?}"
    );
    assert_eq!(served.scene.faults()["faults"], Value::Array(Vec::new()));
    assert_eq!(
        served.sabot(&olga, "get").status.code(),
        Some(0),
        "others are served"
    );
}

#[test]
fn plaintext_is_refused() {
    let served = Served::new();
    let mut stream = served.connect();
    stream.write_all(PREFACE).expect("it is sent");
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    // At most an alert of TLS, which begins with 21; a frame of HTTP/2's settings would be of type 4.
    assert!(said.is_empty() || said[0] == 21, "{said:?}");
}

#[test]
fn tcp_without_mutual_tls_is_refused_at_the_start() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let authority = Authority::new(folder.path(), "authority");
    let server = authority.issue(folder.path(), "server", "sabotd", &["127.0.0.1"]);
    let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let (cert, key, ca) = (
        path(&server.certificate),
        path(&server.key),
        path(&authority.file),
    );
    let whole = [
        "--tls-cert",
        &cert,
        "--tls-key",
        &key,
        "--tls-client-ca",
        &ca,
        "--tls-viewer",
        "vera",
    ];
    let listen = ["--listen", "127.0.0.1:0"];
    let mixed = [
        &listen[..],
        &["--tls-cert", &cert, "--tls-key", &cert],
        &whole[4..],
    ]
    .concat();
    let refused: [(Vec<&str>, i32, &[&str]); 6] = [
        (
            listen.to_vec(),
            USAGE,
            &["--tls-cert, --tls-key, --tls-client-ca"],
        ),
        (
            [&listen[..], &whole[..4]].concat(),
            USAGE,
            &["missing: --tls-client-ca"],
        ),
        (
            [&listen[..], &whole[..6]].concat(),
            USAGE,
            &["--tls-operator or --tls-viewer"],
        ),
        (
            whole[..4].to_vec(),
            USAGE,
            &["tls-cert", "no effect without --listen"],
        ),
        (
            [&listen[..], &whole, &["--tls-operator", "vera"]].concat(),
            USAGE,
            &["one role"],
        ),
        (mixed, 1, &["reading the key", "server.pem"]),
    ];
    for (flags, code, says) in refused {
        assert_ends(&flags, code, says);
    }
}

fn assert_ends(flags: &[&str], code: i32, says: &[&str]) {
    let options = DaemonOptions::built().expect("it is built").flags(flags);
    let mut daemon = Daemon::spawn(options).expect("it is started");
    let status = daemon.wait_end(PATIENCE).expect("it ends");
    let log = daemon.log();
    assert_eq!(status.code(), Some(code), "{flags:?}: {log}");
    for part in says {
        assert!(log.contains(part), "{flags:?}: `{part}` is not in: {log}");
    }
}

/// `sabot watch` over TCP, whose documents come one a line.
struct Watch {
    child: Child,
    lines: Receiver<Value>,
}

impl Watch {
    fn start(served: &Served, who: &Identity) -> Self {
        let mut command = served.command(who, &served.authority.file, "watch -o json");
        let mut child = command.stdout(Stdio::piped()).spawn().expect("sabot runs");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = sender.send(serde_json::from_str(&line).expect("a document"));
            }
        });
        Self { child, lines }
    }

    fn wait(&self, change: &str) {
        loop {
            let next = self.lines.recv_timeout(PATIENCE);
            let next = next.unwrap_or_else(|error| panic!("no {change} is seen: {error}"));
            if next["change"] == change {
                return;
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn certificates_are_read_again_and_connections_go_on() {
    let served = Served::new();
    let folder = served.folder().to_owned();
    let olga = served.identity("olga", &[]);
    let watch = Watch::start(&served, &olga);
    watch.wait("synced");
    let old_authority = std::fs::read_to_string(&served.authority.file).expect("it is there");
    let trusted = folder.join("trusted.pem");
    std::fs::write(&trusted, &old_authority).expect("it is written");
    let (first, _) = served.stranger(&trusted).expect("it is shown");

    // A renewed certificate of the server.
    served
        .authority
        .issue(&folder, "server", "sabotd", &["127.0.0.1"]);
    let renewed = || served.stranger(&trusted).is_ok_and(|(shown, _)| shown != first);
    assert!(
        wait_until(PATIENCE, LOOK, renewed),
        "the former certificate is still shown"
    );
    assert_eq!(served.sabot(&olga, "get").status.code(), Some(0));

    // Files that can't be used change nothing.
    let (second, _) = served.stranger(&trusted).expect("it is shown");
    let key = folder.join("server.key");
    let good = std::fs::read_to_string(&key).expect("it is there");
    replace(&key, "nonsense");
    let said = || served.scene.daemon.log().contains("the former ones stay");
    assert!(wait_until(PATIENCE, LOOK, said), "{}", served.scene.daemon.log());
    assert_eq!(served.stranger(&trusted).expect("it is shown").0, second);
    replace(&key, &good);

    // Another authority of clients: who was let in by the former one isn't any more, but for the connection that is there.
    let successor = Authority::new(&folder, "successor");
    replace(
        &served.authority.file,
        &std::fs::read_to_string(&successor.file).expect("it is there"),
    );
    let ours = successor.issue(&folder, "successors", "olga", &[]);
    let as_trusting = |who: &Identity, line: &str| {
        let mut command = served.command(who, &trusted, line);
        command.output().expect("sabot runs")
    };
    let admitted = || as_trusting(&ours, "get").status.code() == Some(0);
    assert!(
        wait_until(PATIENCE, LOOK, admitted),
        "the new authority isn't known"
    );
    assert_says(&as_trusting(&olga, "get"), NOT_REACHABLE, &[ADDRESS]);
    let applied = as_trusting(&ours, &served.partition());
    assert_eq!(applied.status.code(), Some(0), "{}", stderr(&applied));
    watch.wait("added");
}
