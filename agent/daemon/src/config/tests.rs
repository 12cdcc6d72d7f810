use std::io::Write;
use std::time::Duration;

use crate::targets::RuntimeEndpoint;

use super::{
    Attach, AuditPlace, Config, ConfigError, Hook, Invocation, KubernetesMode, LogFormat, MeasureMode,
    ObserveMode,
};

fn invocation(arguments: &[&str]) -> Result<Invocation, ConfigError> {
    Invocation::load(std::iter::once("sabotd").chain(arguments.iter().copied()))
}

fn load(arguments: &[&str]) -> Result<Config, ConfigError> {
    match invocation(arguments)? {
        Invocation::Serve(config) => Ok(*config),
        other => panic!("{arguments:?} is {other:?}"),
    }
}

fn refused(arguments: &[&str]) -> String {
    match load(arguments) {
        Ok(config) => panic!("{arguments:?} was accepted: {config:?}"),
        Err(error) => error.to_string(),
    }
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("written");
    file
}

fn with_file(text: &str, arguments: &[&str]) -> Result<Config, ConfigError> {
    let file = file(text);
    let path = file.path().to_str().expect("an UTF-8 path").to_owned();
    load(&[&["--config", &path], arguments].concat())
}

#[test]
fn defaults_are_complete() {
    let config = with_file("", &[]).expect("an empty file is valid");
    assert_eq!(config.socket.to_str(), Some("/run/sabot/sabotd.sock"));
    assert_eq!(
        config.metrics_address.map(|a| a.to_string()).as_deref(),
        Some("0.0.0.0:9464")
    );
    assert_eq!(config.max_duration, Duration::from_secs(3600));
    assert_eq!(config.keep_warm, Duration::from_secs(60));
    assert_eq!((config.attach, config.hook), (Attach::Recent, Hook::Auto));
    assert_eq!(config.syscalls, ObserveMode::Always);
    assert_eq!(config.tcp, ObserveMode::Always);
    assert_eq!(config.measure_programs, MeasureMode::Sampled);
    assert_eq!(config.tcp_connections, 65_536);
    assert!(config.cri_calls);
    assert_eq!(config.log.format, LogFormat::Text);
    assert!(!config.node_name.is_empty());
    assert_eq!(config.runtime_endpoint, RuntimeEndpoint::Auto);
    assert_eq!(
        (config.kubernetes, config.kubeconfig),
        (KubernetesMode::Auto, None)
    );
}

#[test]
fn programs_are_measured_as_a_word_says() {
    let config = with_file("measure-programs = 'always'", &[]).expect("it is valid");
    assert_eq!(config.measure_programs, MeasureMode::Always);
    let flags = ["--measure-programs", "never"];
    let config = with_file("measure-programs = 'always'", &flags).expect("it is valid");
    assert_eq!(config.measure_programs, MeasureMode::Never);
    for arguments in [&["--measure-programs", "true"][..], &["--measure-programs"]] {
        let error = refused(arguments);
        assert!(error.contains("--measure-programs"), "{error}");
        assert!(error.contains("never, sampled, always"), "{error}");
    }
}

#[test]
fn a_kubeconfig_is_for_a_cluster_that_is_asked() {
    let config = with_file("kubeconfig = '/etc/sabot/kubeconfig'", &[]).expect("it is valid");
    assert_eq!(
        config.kubeconfig.as_deref(),
        Some("/etc/sabot/kubeconfig".as_ref())
    );
    let config = load(&["--kubernetes", "off"]).expect("it is valid");
    assert_eq!(config.kubernetes, KubernetesMode::Off);
    let error = refused(&["--kubernetes", "off", "--kubeconfig", "/x"]);
    assert_eq!(
        error,
        "kubeconfig: `/x` is not allowed: with `kubernetes` set to off there is nothing that it is for"
    );
    let error = refused(&["--kubernetes", "on"]);
    assert!(error.contains("auto, off"), "{error}");
}

#[test]
fn a_flag_goes_before_the_file_and_the_file_before_the_default() {
    let text = "
        keep-warm = '5s'
        max-duration = '10m'
        metrics-address = 'none'
        delay-line-bytes = 1048576
        delay-line-total-bytes = '4MiB'
        hook = 'clsact'
        syscall-process = ['etcd']
        peer-class = ['pod=10.244.0.0/16', 'service=10.96.0.0/12']
    ";
    let config = with_file(
        text,
        &[
            "--keep-warm",
            "7s",
            "--syscall-process",
            "dockerd",
            "--syscall-process",
            "foo",
            "--syscall-cgroup",
            "/a,/b/c",
            "--syscall-container",
            "kube-system/etcd",
            "--peer-class",
            "node=192.0.2.0/24,public=fd00::/8",
            "--peer-class",
            "node=192.168.10.0/24",
        ],
    )
    .expect("valid");
    assert_eq!(config.peer_classes.len(), 5);
    assert_eq!(config.syscall_cgroups, ["/a", "/b/c"]);
    assert_eq!(config.syscall_containers, ["kube-system/etcd"]);
    assert_eq!(config.keep_warm, Duration::from_secs(7));
    assert_eq!(config.max_duration, Duration::from_secs(600));
    assert_eq!(config.metrics_address, None);
    assert_eq!(
        (config.delay_line_bytes, config.delay_line_total_bytes),
        (1 << 20, 4 << 20)
    );
    assert_eq!(config.hook, Hook::Clsact);
    assert_eq!(config.syscall_processes, ["etcd", "dockerd", "foo"]);
}

#[test]
fn every_flag_has_its_variable() {
    use clap::CommandFactory;
    for argument in super::CommandLine::command().get_arguments() {
        let Some(long) = argument.get_long().filter(|l| !["help", "version"].contains(l)) else {
            continue;
        };
        let variable = format!("SABOT_{}", long.replace('-', "_").to_uppercase());
        assert_eq!(
            argument.get_env().and_then(|v| v.to_str()),
            Some(variable.as_str()),
            "--{long}"
        );
    }
}

/// The table of the file that a flag's setting is in, and its key there.
fn place(long: &str) -> (&'static str, &str) {
    match long {
        "tls-operator" => ("[roles]", "operators"),
        "tls-viewer" => ("[roles]", "viewers"),
        _ => {
            let tables = [("guard-", "[guard]"), ("tls-", "[tls]")];
            let inside = tables
                .iter()
                .find_map(|(prefix, table)| Some((*table, long.strip_prefix(prefix)?)));
            inside.unwrap_or(("", long))
        }
    }
}

#[test]
fn the_files_keys_are_the_flags_names() {
    use clap::CommandFactory;
    for argument in super::CommandLine::command().get_arguments() {
        let long = argument.get_long().expect("only long flags");
        if ["help", "version", "config"].contains(&long) {
            continue;
        }
        let (table, key) = place(long);
        let wrong = with_file(&format!("{table}\nsurprise = 1"), &[])
            .expect_err("an unknown key")
            .to_string();
        assert!(wrong.contains(&format!("`{key}`")), "{long} is no key: {wrong}");
    }
}

#[test]
fn connections_that_are_followed_have_a_bound() {
    for given in ["0", "1048577"] {
        let error = refused(&["--tcp-connections", given]);
        let allowed = "1 to 1048576 connections are allowed";
        assert_eq!(
            error,
            format!("tcp-connections: `{given}` is not allowed: {allowed}")
        );
    }
    let config = with_file("tcp-connections = 7", &[]).expect("valid");
    assert_eq!(config.tcp_connections, 7);
    let config = with_file("tcp-connections = 7", &["--tcp-connections", "1048576"]).expect("valid");
    assert_eq!(config.tcp_connections, 1 << 20);
}

#[test]
fn refusals_name_the_setting_and_what_is_allowed() {
    let cases: &[(&[&str], &[&str])] = &[
        (
            &["--metrics-address", "localhost"],
            &["--metrics-address", "localhost", "0.0.0.0:9464"],
        ),
        (&["--keep-warm", "soon"], &["--keep-warm", "soon", "500ms"]),
        (&["--max-duration", "0s"], &["max-duration", "`0s`", "above zero"]),
        (
            &["--delay-line-bytes", "1KiB"],
            &["delay-line-bytes", "`1024`", "256KiB"],
        ),
        (
            &["--delay-line-bytes", "1XB"],
            &["--delay-line-bytes", "`XB`", "MiB"],
        ),
        (
            &["--delay-line-total-bytes", "1MiB"],
            &["delay-line-total-bytes", "1048576", "67108864"],
        ),
        (&["--event-buffer", "0"], &["event-buffer", "`0`", "1 to"]),
        (
            &["--syscall-process", "a-name-that-is-too-long"],
            &["syscall-process", "15 bytes"],
        ),
        (
            &["--syscall-container", "etcd"],
            &["syscall-container", "`etcd`", "kube-system/etcd"],
        ),
        (
            &["--peer-class", "pod=10.0.0.0/8,pods=10.0.0.0/8"],
            &["peer-class", "`pods=10.0.0.0/8`", "service, node"],
        ),
        (&["--hook", "xdp"], &["--hook", "xdp", "tcx", "clsact"]),
        (&["--log-level", "info,a=b=c"], &["log-level", "info,a=b=c"]),
        (
            &["--runtime-endpoint", "tcp://x"],
            &["runtime-endpoint", "tcp://x", "unix://"],
        ),
        (
            &["--socket", "relative.sock"],
            &["socket", "relative.sock", "absolute"],
        ),
        (&["--runtime-poll", "1ms"], &["runtime-poll", "`1ms`", "10ms"]),
        (&["--bogus"], &["--bogus"]),
        (
            &["--config", "/nonexistent/x.toml"],
            &["/nonexistent/x.toml", "No such file"],
        ),
    ];
    for (arguments, parts) in cases {
        let message = refused(arguments);
        for part in *parts {
            assert!(
                message.contains(part),
                "{arguments:?}: `{part}` is not in: {message}"
            );
        }
    }
}

#[test]
fn a_bad_file_is_refused_by_path_and_key() {
    for (text, parts) in [
        ("keep-wram = '5s'", ["keep-wram", "keep-warm"]),
        ("keep-warm = 'x'", ["keep-warm", "`x`"]),
        ("keep-warm = true", ["keep-warm", "a text or a number is needed"]),
        ("attach = 'some'", ["attach", "recent"]),
        (
            "measure-programs = true",
            [
                "measure-programs",
                "`true` is not allowed: never, sampled and always are",
            ],
        ),
        (
            "measure-programs = 'often'",
            [
                "measure-programs",
                "`often` is not allowed: never, sampled and always are",
            ],
        ),
        ("keep-warm", ["line 1", "keep-warm"]),
    ] {
        let message = with_file(text, &[]).expect_err(text).to_string();
        assert!(message.contains("the configuration file /"), "{message}");
        for part in parts {
            assert!(message.contains(part), "{text}: `{part}` is not in: {message}");
        }
    }
}

#[test]
fn guards_come_from_flags_and_from_their_table() {
    let text = "
        [guard]
        protected-namespace = ['bank']
        namespace-share = '25%'
        workload-share = 50
        node-share = 40
        opt-in = 'chaos in (yes, maybe)'
        port = [2222]
    ";
    let flags = [
        "--guard-protected-namespace",
        "shop,till",
        "--guard-node-share",
        "10",
    ];
    let guards = with_file(text, &flags).expect("valid").guards;
    let namespaces: Vec<_> = guards
        .pods
        .protected_namespaces
        .iter()
        .map(String::as_str)
        .collect();
    assert_eq!(namespaces, ["bank", "shop", "till"]);
    assert_eq!(guards.pods.namespace_share.value(), 25.0);
    assert_eq!(guards.pods.node_share.value(), 10.0);
    assert_eq!(guards.pods.workload_share.value(), 50.0);
    let wanted = guards.pods.opt_in.expect("it is given");
    assert!(wanted.matches(&[("chaos".to_owned(), "yes".to_owned())].into()));
    assert!(!wanted.matches(&[("chaos".to_owned(), "no".to_owned())].into()));
    assert_eq!(guards.ports, [2222].into());

    let guards = with_file("", &[]).expect("valid").guards;
    assert!(guards.pods.protected_namespaces.contains("kube-system"));
    assert_eq!(guards.ports, [22, 10250].into());
    assert!(!guards.pods.limit_shares() && !guards.pods.limit_workloads());
    let none = load(&["--guard-protected-namespace", "none"])
        .expect("valid")
        .guards;
    assert!(none.pods.protected_namespaces.is_empty());
}

#[test]
fn tcp_is_served_with_files_and_roles_only() {
    let text = "
        listen = '127.0.0.1:9465'
        [tls]
        cert = '/c'
        key = '/k'
        client-ca = '/a'
        [roles]
        operators = ['olga']
        viewers = ['vera']
    ";
    let remote = with_file(text, &["--tls-viewer", "viktor"])
        .expect("valid")
        .remote;
    let remote = remote.expect("it is served");
    assert_eq!(remote.address.to_string(), "127.0.0.1:9465");
    assert_eq!(remote.files.client_authorities.to_str(), Some("/a"));
    assert_eq!(remote.roles.operators, ["olga".to_owned()].into());
    assert_eq!(remote.roles.viewers, ["vera", "viktor"].map(str::to_owned).into());
    assert_eq!(load(&[]).expect("valid").remote, None);
    let error = refused(&["--listen", "127.0.0.1:9465", "--tls-cert", "/c"]);
    assert!(error.contains("missing: --tls-key, --tls-client-ca"), "{error}");
    let error = with_file(text, &["--tls-operator", "vera"])
        .expect_err("two roles")
        .to_string();
    assert!(
        error.contains("tls-viewer") && error.contains("`vera`"),
        "{error}"
    );
}

#[test]
fn the_audit_log_is_a_file_or_stderr() {
    let place = |given: &str| load(&["--audit-log", given]).expect("valid").audit_log;
    assert_eq!(place("stderr"), Some(AuditPlace::Stderr));
    assert_eq!(place("/var/log/a"), Some(AuditPlace::File("/var/log/a".into())));
    assert!(refused(&["--audit-log", "a.log"]).contains("an absolute path"));
    assert_eq!(load(&[]).expect("valid").audit_log, None);
}

#[test]
fn a_reaper_is_told_whose_it_is() {
    let reaper = invocation(&["reaper", "--owner", "4711"]).expect("it is valid");
    assert_eq!(reaper, Invocation::Reaper { owner: 4711 });
    for arguments in [&["reaper"][..], &["reaper", "--owner", "sabotd"]] {
        let error = invocation(arguments).expect_err("whose it is can't be told");
        assert!(error.to_string().contains("--owner"), "{error}");
    }
}

#[test]
fn a_bridge_finds_the_socket_as_the_daemon_does() {
    let socket = |arguments: &[&str]| match invocation(arguments).expect("it is valid") {
        Invocation::Bridge { socket } => socket.display().to_string(),
        other => panic!("{arguments:?} is {other:?}"),
    };
    let empty = file("");
    let empty = empty.path().to_str().expect("an UTF-8 path");
    assert_eq!(socket(&["bridge", "--config", empty]), "/run/sabot/sabotd.sock");
    let named = file("socket = '/run/other.sock'\nkeep-warm = '5s'\n");
    let named = named.path().to_str().expect("an UTF-8 path");
    assert_eq!(socket(&["bridge", "--config", named]), "/run/other.sock");
    let given = ["bridge", "--config", named, "--socket", "/run/third.sock"];
    assert_eq!(socket(&given), "/run/third.sock");

    for (arguments, why) in [
        (
            &["bridge", "--config", empty, "--socket", "relative.sock"][..],
            "absolute",
        ),
        (&["bridge", "--max-duration", "5m"], "--max-duration"),
        (&["--max-duration", "5m", "bridge"], "bridge"),
        (&["bridge", "--config", "/nonexistent.toml"], "/nonexistent.toml"),
    ] {
        let error = invocation(arguments).expect_err(why).to_string();
        assert!(error.contains(why), "{error}");
    }
}
