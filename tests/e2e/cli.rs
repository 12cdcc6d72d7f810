//! Every command of `sabot` against a real daemon, as scripts and people use it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use sabot_testkit::traffic::ping;
use sabot_testkit::{Daemon, DaemonOptions, Lab};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);

struct Scene {
    // Ends before the lab does.
    daemon: Daemon,
    lab: Lab,
}

impl Scene {
    fn new(flags: &[&str]) -> Self {
        Self::with(DaemonOptions::built().expect("the daemon is built").flags(flags))
    }

    fn with(options: DaemonOptions) -> Self {
        let lab = Lab::new(2).expect("a lab can be made (root is needed)");
        let daemon = Daemon::start(options.netns(lab.node())).expect("the daemon starts");
        Self { daemon, lab }
    }

    /// The options that name the first pod as the target and the second one as its peer.
    fn ends(&self) -> String {
        format!(
            "--target {} --peer ip:{} --for 60s",
            self.lab.pod(0).target(),
            self.lab.pod(1).ipv4()
        )
    }

    fn run(&self, line: &str) -> Output {
        let words: Vec<_> = line.split_whitespace().collect();
        self.daemon.sabot(&words).expect("sabot runs")
    }

    /// What a command that succeeds prints.
    fn ok(&self, line: &str) -> String {
        let words: Vec<_> = line.split_whitespace().collect();
        self.daemon
            .sabot_ok(&words)
            .unwrap_or_else(|error| panic!("{error:#}"))
    }

    fn json(&self, line: &str) -> Value {
        let words: Vec<_> = line.split_whitespace().collect();
        self.daemon
            .sabot_json(&words)
            .unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Runs a command with this on its standard input.
    fn with_input(&self, line: &str, input: &str) -> Output {
        let words: Vec<_> = line.split_whitespace().collect();
        let mut child = self
            .daemon
            .sabot_command(&words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("sabot runs");
        let mut stdin = child.stdin.take().expect("it is piped");
        stdin.write_all(input.as_bytes()).expect("sabot reads");
        drop(stdin);
        child.wait_with_output().expect("sabot ends")
    }

    /// A document of `apply -f`.
    fn manifest(&self, name: &str, action: &str) -> String {
        let (target, peer) = (self.lab.pod(0).netns().path().display(), self.lab.pod(1).ipv4());
        format!(
            "---\napiVersion: sabot.dev/v1alpha1\nkind: NetworkFault\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec:\n  duration: 60s\n  target: {{netns: {target}}}\n  peers: [{{ip: {peer}}}]\n  action: {action}\n"
        )
    }

    fn answers(&self) -> bool {
        let report = ping(
            self.lab.pod(0).netns(),
            self.lab.pod(1).ipv4(),
            1,
            Duration::from_millis(10),
        );
        report.expect("ping runs").median().is_some()
    }

    fn names(&self) -> Vec<String> {
        let faults = self.json("get --active");
        let faults = faults["faults"].as_array().expect("a list");
        let name = |fault: &Value| fault["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        faults.iter().map(name).collect()
    }
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A command that runs beside the test; its lines are documents. It is killed with its guard.
struct Stream {
    child: Child,
    documents: Receiver<Value>,
}

impl Stream {
    fn start(scene: &Scene, line: &str) -> Self {
        let words: Vec<_> = line.split_whitespace().collect();
        let mut command = scene.daemon.sabot_command(&words);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("sabot runs");
        let output = child.stdout.take().expect("it is piped");
        let (sender, documents) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let document = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no document: {line}"));
                // Nobody listens any more when the test is over.
                let _ = sender.send(document);
            }
        });
        Self { child, documents }
    }

    /// The next document that is as `holds` says.
    fn wait(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        loop {
            let document = self.documents.recv_timeout(PATIENCE);
            let document = document.unwrap_or_else(|_| panic!("waited in vain for {what}"));
            if holds(&document) {
                return document;
            }
        }
    }

    /// How it ends by itself.
    fn end(mut self) -> Option<i32> {
        self.child.wait().expect("it can be waited for").code()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn every_action_bites_and_is_shown_in_every_format() {
    let scene = Scene::new(&[]);
    let ends = scene.ends();
    assert_eq!(scene.ok("get").trim(), "no faults");
    let preview = scene.json(&format!("partition --name cut --dry-run {ends}"));
    assert_eq!(
        preview["targets"].as_array().map(Vec::len),
        Some(1),
        "{preview:#}"
    );
    assert!(
        scene.names().is_empty() && scene.answers(),
        "a dry run does nothing"
    );

    for action in ["partition", "drop 100%", "delay 2s --jitter 1s", "corrupt 0.01%"] {
        let said = scene.ok(&format!("{action} --name one -n shop {ends}"));
        assert!(
            said.starts_with("fault shop/one applied: Injected on 1/1 targets"),
            "{said}"
        );
        let corrupts = action.starts_with("corrupt");
        assert_eq!(scene.answers(), corrupts, "{action}");
        let table = scene.ok("get");
        let word = action.split(' ').next().expect("an action");
        assert!(
            table.starts_with("NAME") && table.contains("shop/one") && table.contains(word),
            "{table}"
        );
        let json = scene.json("get shop/one");
        let yaml = scene.ok("get one -n shop -o yaml");
        assert_eq!(json["apiVersion"], "sabot.dev/v1alpha1");
        assert!(json["spec"]["action"].get(word).is_some(), "{json:#}");
        assert!(
            json["status"]["ledgers"].as_array().is_some_and(|l| l.len() == 2),
            "{json:#}"
        );
        assert!(
            yaml.contains("kind: NetworkFault") && yaml.contains("phase: Injected"),
            "{yaml}"
        );
        let detail = scene.ok("get shop/one");
        assert!(
            detail.contains("MATCHED") && detail.contains("egress"),
            "{detail}"
        );
        let said = scene.ok("delete shop/one");
        assert!(said.contains("shop/one"), "{said}");
        assert!(scene.answers(), "{action} is over");
    }
    assert!(scene.names().is_empty());
    let ended = scene.json("get one -n shop");
    assert_eq!(
        ended["status"]["phase"], "Deleted",
        "an ended fault stays for a while"
    );
}

#[test]
fn faults_are_deleted_by_name_by_namespace_and_all_at_once() {
    let scene = Scene::new(&[]);
    let ends = scene.ends();
    scene.ok(&format!("partition --name a {ends}"));
    scene.ok(&format!("partition --name b -n shop {ends}"));
    assert_eq!(scene.names(), ["a", "b"]);
    let deleted = scene.json("delete --all -n shop");
    assert_eq!(deleted["faults"].as_array().map(Vec::len), Some(1), "{deleted:#}");
    assert_eq!(scene.names(), ["a"]);
    scene.ok("delete --all");
    assert!(scene.names().is_empty() && scene.answers());
    // A name is made up where none is given.
    let made = scene.json(&format!("partition {ends}"));
    let name = made["metadata"]["name"].as_str().expect("it has a name");
    assert!(name.starts_with("partition-"), "{name}");
    scene.ok(&format!("delete {name}"));
}

#[test]
fn a_file_is_applied_whole_or_not_at_all() {
    let scene = Scene::new(&[]);
    let good = scene.manifest("cut", "{partition: {}}") + &scene.manifest("late", "{delay: {latency: 5ms}}");
    let preview = scene.with_input("apply -f - --dry-run", &good);
    assert_eq!(code(&preview), Some(0), "{}", stderr(&preview));
    assert!(scene.names().is_empty(), "a dry run does nothing");

    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("faults.yaml");
    fs::write(&file, &good).expect("a file");
    let said = scene.ok(&format!("apply -f {}", file.display()));
    assert!(
        said.contains("shop/cut applied") && said.contains("shop/late applied"),
        "{said}"
    );
    assert_eq!(scene.names(), ["cut", "late"]);
    let first = scene.json("get shop/cut");
    let again = scene.json(&format!("apply -f {}", file.display()));
    assert_eq!(
        again["faults"][0]["status"]["expiresAt"], first["status"]["expiresAt"],
        "nothing changed"
    );
    let edited = scene.manifest("cut", "{drop: {percent: 5}}");
    assert_eq!(code(&scene.with_input("apply -f -", &edited)), Some(0));
    assert_eq!(
        scene.json("get shop/cut")["spec"]["action"]["drop"]["percent"],
        5.0
    );
    scene.ok("delete --all");

    let unknown = good.replace("latency: 5ms", "latency: 5ms, surprise: 1");
    for (bad, why) in [
        (unknown, "surprise"),
        (good.replace("60s", "2h"), "spec.duration"),
        (
            good.clone() + &scene.manifest("worse", "{drop: {percent: 101}}"),
            "spec.action.drop.percent",
        ),
        (good.clone() + &scene.manifest("cut", "{partition: {}}"), "twice"),
        (good.replace("NetworkFault", "Deployment"), "kind"),
        (String::new(), "empty"),
    ] {
        let refused = scene.with_input("apply -f -", &bad);
        assert_eq!(code(&refused), Some(2), "{}", stderr(&refused));
        assert!(stderr(&refused).contains(why), "{why}: {}", stderr(&refused));
        assert!(scene.names().is_empty(), "{why}: nothing is applied");
    }
    assert_eq!(code(&scene.run("apply -f /nonexistent.yaml")), Some(1));
}

#[test]
fn streams_show_what_happens_as_it_happens() {
    let scene = Scene::new(&[]);
    let ends = scene.ends();
    let watch = Stream::start(&scene, "watch -o json --interval 100ms");
    watch.wait("the beginning", |change| change["change"] == "synced");
    let events = Stream::start(&scene, "events -o json --type packet --type fault --fault cut");
    let dropped = Stream::start(&scene, "events -o json --type packet --outcome passed");

    // Events come from now on: an event of a fault's change tells that the stream is open.
    let mut number = 0;
    let opened = loop {
        number += 1;
        scene.ok(&format!("partition --name cut --sample-every 1 {ends}"));
        if let Ok(event) = events.documents.recv_timeout(Duration::from_millis(500)) {
            break event;
        }
        scene.ok("delete cut");
        assert!(number < 20, "no event comes");
    };
    assert_eq!(opened["type"], "fault", "{opened}");
    assert_eq!(opened["fault"]["name"], "cut", "{opened}");
    watch.wait("the fault", |change| change["fault"]["metadata"]["name"] == "cut");
    let own = Stream::start(&scene, "watch cut -o json");
    own.wait("the beginning", |change| change["change"] == "synced");

    assert!(!scene.answers());
    let packet = events.wait("a packet", |event| event["type"] == "packet");
    let (client, server) = (scene.lab.pod(0), scene.lab.pod(1));
    assert_eq!(packet["outcome"], "dropped", "{packet}");
    assert_eq!(packet["direction"], "egress", "{packet}");
    assert_eq!(packet["source"], client.ipv4().to_string(), "{packet}");
    assert_eq!(packet["destination"], server.ipv4().to_string(), "{packet}");
    assert_eq!(
        (&packet["protocol"], &packet["wirePackets"]),
        (&Value::from(1), &Value::from(1))
    );
    // 56 bytes of data, 8 of ICMP, 20 of IP and 14 of Ethernet.
    assert_eq!(packet["wireBytes"], 98, "{packet}");
    assert_eq!(packet["device"], "eth0", "{packet}");
    let moved = watch.wait("counters", |change| change["change"] == "counters");
    assert_eq!(
        moved["fault"]["status"]["ledgers"].as_array().map(Vec::len),
        Some(2),
        "{moved:#}"
    );

    scene.ok("delete cut");
    watch.wait("the end", |change| change["change"] == "deleted");
    events.wait("the end", |event| event["change"] == "deleted");
    assert_eq!(own.end(), Some(0), "a watch of one fault ends with it");
    assert!(
        dropped.documents.try_iter().next().is_none(),
        "nothing has passed a partition"
    );
    assert_eq!(code(&scene.run("watch nobody")), Some(1));
}

#[test]
fn the_node_and_its_targets_are_shown() {
    let scene = Scene::new(&[]);
    let node = scene.json("node");
    assert_eq!(node["name"], "node-a");
    assert_eq!(node["runtime"]["state"], "absent", "{node:#}");
    let table = scene.ok("node");
    for word in ["node-a", "tcx", "absent"] {
        assert!(table.contains(word), "{word}: {table}");
    }
    assert!(scene.ok("node -o yaml").contains("kernelRelease:"));

    assert_eq!(scene.json("targets")["targets"], Value::Array(Vec::new()));
    scene.ok(&format!("partition --name cut {}", scene.ends()));
    let targets = scene.json("targets");
    let path = scene.lab.pod(0).netns().path().display().to_string();
    assert_eq!(targets["targets"][0]["netns"], path.as_str(), "{targets:#}");
    assert_eq!(targets["targets"][0]["faults"][0]["name"], "cut", "{targets:#}");
    assert!(scene.ok("targets").contains(&path));
    assert_eq!(scene.json("node")["activeFaults"], 1);
}

#[test]
fn completions_are_printed_for_each_shell() {
    let scene = Scene::new(&[]);
    for (shell, mark) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef sabot"),
        ("fish", "complete -c sabot"),
    ] {
        let script = scene.ok(&format!("completions {shell}"));
        assert!(
            script.contains(mark) && script.contains("partition"),
            "{shell}: {script}"
        );
    }
    // The shell itself is the judge.
    let script = scene.ok("completions bash");
    let checked = Command::new("bash")
        .args(["-n", "-c", &script])
        .output()
        .expect("bash runs");
    assert!(checked.status.success(), "{}", stderr(&checked));
    assert_eq!(code(&scene.run("completions perl")), Some(2));
}

#[test]
fn exit_codes_and_messages_say_what_went_wrong() {
    let options = DaemonOptions::built().expect("the daemon is built");
    let options = options.runtime(Path::new("/nonexistent/cri.sock"));
    let scene = Scene::with(options.flags(&["--max-duration", "10m"]));
    for (line, expected, why) in wrong_lines(&scene) {
        let output = scene.run(&line);
        assert_eq!(code(&output), Some(expected), "sabot {line}: {}", stderr(&output));
        assert!(stderr(&output).contains(why), "sabot {line}: {}", stderr(&output));
        assert!(stdout(&output).is_empty(), "sabot {line}: {}", stdout(&output));
    }
    let helped = scene.run("--help");
    assert!(code(&helped) == Some(0) && stdout(&helped).contains("Usage: sabot"));

    // Accepted, and said why it is pending.
    let said = scene.ok("partition --target pods:a/b=c --for 5s");
    assert!(
        said.contains("Pending") && said.contains("/nonexistent/cri.sock"),
        "{said}"
    );
}

/// Command lines that are refused, their exit codes, and what must be in the message.
fn wrong_lines(scene: &Scene) -> Vec<(String, i32, &'static str)> {
    let ends = scene.ends();
    let (target, peer) = (scene.lab.pod(0).target(), scene.lab.pod(1).ipv4());
    vec![
        ("get nobody".to_owned(), 1, "nobody"),
        ("delete nobody".to_owned(), 1, "nobody"),
        (String::new(), 2, "Usage"),
        ("explode".to_owned(), 2, "explode"),
        (format!("partition --target {target}"), 2, "--for"),
        (
            format!("partition --target {target} --for 20m"),
            2,
            "spec.duration",
        ),
        (
            format!("partition --target {target} --for 0s"),
            2,
            "spec.duration",
        ),
        (format!("drop 101 {ends}"), 2, "101"),
        (
            format!("delay 5ms --jitter 6ms {ends}"),
            2,
            "spec.action.delay.jitter",
        ),
        (format!("partition --port 0 {ends}"), 2, "port"),
        (
            format!("partition --target {target} --peer cidr:10.0.0.0/33 --for 5s"),
            2,
            "10.0.0.0/33",
        ),
        (
            format!("partition --target {target} --peer cidr:10.0.0.0/8,except=11.0.0.0/8 --for 5s"),
            2,
            "11.0.0.0/8",
        ),
        (
            format!("partition --target pods:a --peer ip:{peer} --for 5s"),
            2,
            "pods:",
        ),
        (
            format!("corrupt 5% --kind colour {ends}"),
            2,
            "spec.action.corrupt.kind",
        ),
    ]
}

#[test]
fn a_daemon_that_is_not_there_has_a_code_and_a_hint() {
    let scene = Scene::new(&[]);
    let sabot = scene.daemon.sabot_command::<&str>(&[]).get_program().to_owned();
    let get = |socket: &Path| {
        Command::new(&sabot)
            .arg("--socket")
            .arg(socket)
            .arg("get")
            .output()
            .expect("sabot runs")
    };
    let absent = get(Path::new("/nonexistent.sock"));
    assert_eq!(code(&absent), Some(3));
    assert!(
        stderr(&absent).contains("is sabotd running"),
        "{}",
        stderr(&absent)
    );
    scene.daemon.pause().expect("it stops");
    let silent = scene.run("get --timeout 300ms");
    scene.daemon.resume().expect("it goes on");
    assert_eq!(code(&silent), Some(3), "{}", stderr(&silent));
    assert!(
        stderr(&silent).contains("didn't answer within 300ms"),
        "{}",
        stderr(&silent)
    );
    assert_eq!(code(&get(&scene.daemon.socket())), Some(0));
}

/// A daemon on a machine where TUN is something else: it opens, and is none.
#[test]
fn what_this_machine_cannot_do_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let wrapper = folder.path().join("sabotd");
    let mut options = DaemonOptions::built().expect("the daemon is built");
    let script = format!(
        "#!/bin/sh\nmount --bind /dev/null /dev/net/tun && exec {} \"$@\"\n",
        options.sabotd.display()
    );
    let unshared = format!(
        "#!/bin/sh\nexec unshare --mount {}.inner \"$@\"\n",
        wrapper.display()
    );
    for (path, text) in [
        (wrapper.with_extension("inner"), script),
        (wrapper.clone(), unshared),
    ] {
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("its mode");
    }
    options.sabotd = wrapper;
    let scene = Scene::with(options);
    let ends = scene.ends();

    let refused = scene.run(&format!("delay 5ms --name late {ends}"));
    assert_eq!(
        code(&refused),
        Some(4),
        "{}{}",
        stdout(&refused),
        stderr(&refused)
    );
    assert!(stderr(&refused).contains("/dev/net/tun"), "{}", stderr(&refused));
    assert!(scene.names().is_empty(), "a refused fault isn't there");
    let node = scene.json("node");
    let features = node["features"].as_array().expect("features are listed");
    let tun = features
        .iter()
        .find(|feature| feature["name"] == "tun")
        .expect("TUN is one");
    assert_eq!(tun["available"], false, "{tun}");
    assert!(
        tun["consequence"]
            .as_str()
            .is_some_and(|what| what.contains("delay")),
        "{tun}"
    );
    // The rest works.
    scene.ok(&format!("partition --name cut {ends}"));
    assert!(!scene.answers());
}

#[test]
fn kubectl_finds_it_as_a_plugin() {
    let scene = Scene::new(&[]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let plugin = folder.path().join("kubectl-sabot");
    let sabot = scene.daemon.sabot_command::<&str>(&[]).get_program().to_owned();
    symlink(&sabot, &plugin).expect("a link");
    let help = Command::new(&plugin).arg("--help").output().expect("it runs");
    assert!(
        stdout(&help).contains("Usage: kubectl sabot"),
        "{}",
        stdout(&help)
    );
    let get = Command::new(&plugin)
        .arg("--socket")
        .arg(scene.daemon.socket())
        .arg("get")
        .output();
    assert_eq!(stdout(&get.expect("it runs")).trim(), "no faults");
    let wrong = Command::new(&plugin).arg("explode").output().expect("it runs");
    assert_eq!(code(&wrong), Some(2));
    assert!(stderr(&wrong).contains("kubectl sabot"), "{}", stderr(&wrong));
}
