use std::fs;
use std::path::Path;

use sabot_core::spec::{Action, Partition};
use serde_json::Value;
use tonic::Code;
use tonic_types::ErrorDetails;

use super::*;
use crate::api::Role;

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).expect("it exists");
    let parsed = text.lines().map(serde_json::from_str);
    parsed.collect::<Result<_, _>>().expect("each line is JSON")
}

fn process() -> Who {
    let caller = Caller::Process {
        uid: 0,
        pid: Some(i32::try_from(std::process::id()).expect("it is small")),
    };
    Who::from(Some(&caller))
}

#[test]
fn a_request_is_a_line_with_who_what_and_result() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("audit.log");
    let log = AuditLog::open(Some(&AuditPlace::File(path.clone())), "node-a").expect("it opens");
    let spec = FaultSpec {
        action: Action {
            partition: Some(Partition {}),
            ..Action::default()
        },
        ..FaultSpec::default()
    };
    let asked = Asked {
        method: "ApplyFault",
        fault: Some(fault_text("shop", "cut")),
        spec: Some(&spec),
    };
    let done = Outcome::Done {
        message: "in force on 1 target".into(),
    };
    log.asked(&process(), &asked, &done);
    let details = ErrorDetails::with_error_info("protected-pod", "sabot.dev", []);
    let status = Status::with_error_details(Code::FailedPrecondition, "no", details);
    let viewer = Caller::Certificate {
        name: "alice".into(),
        role: Some(Role::Viewer),
        address: ([192, 0, 2, 1], 4000).into(),
    };
    log.asked(&Who::from(Some(&viewer)), &asked, &Outcome::from(&status));

    let lines = lines(&path);
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["event"], "started");
    let first = &lines[1];
    assert_eq!(first["node"], "node-a");
    assert_eq!(
        (&first["event"], &first["method"]),
        (&"request".into(), &"ApplyFault".into())
    );
    assert_eq!(
        (&first["fault"], &first["result"]),
        (&"shop/cut".into(), &"done".into())
    );
    assert_eq!(first["who"]["kind"], "process");
    assert_eq!(first["who"]["pid"], std::process::id());
    assert!(first["who"]["command"].is_string(), "{first}");
    assert!(first["spec"]["action"]["partition"].is_object(), "{first}");
    assert!(humantime::parse_rfc3339(first["time"].as_str().expect("a text")).is_ok());
    let second = &lines[2];
    assert_eq!(
        (&second["who"]["name"], &second["who"]["role"]),
        (&"alice".into(), &"viewer".into())
    );
    assert_eq!(
        (&second["result"], &second["guard"]),
        (&"refused".into(), &"protected-pod".into())
    );
    assert_eq!(second["code"], "FailedPrecondition");
}

#[test]
fn a_rotated_file_is_made_anew_and_an_old_one_goes_on() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("audit.log");
    let place = AuditPlace::File(path.clone());
    let log = AuditLog::open(Some(&place), "node-a").expect("it opens");
    let ask = |log: &AuditLog| {
        let done = Outcome::Done {
            message: String::new(),
        };
        log.asked(&Who::Unknown, &Asked::default(), &done);
    };
    ask(&log);
    let rotated = folder.path().join("audit.log.1");
    fs::rename(&path, &rotated).expect("it is renamed");
    ask(&log);
    assert_eq!((lines(&rotated).len(), lines(&path).len()), (2, 1));
    fs::remove_file(&path).expect("it is removed");
    ask(&log);
    assert_eq!(lines(&path).len(), 1);
    drop(log);
    AuditLog::open(Some(&place), "node-a").expect("it opens again");
    assert_eq!(lines(&path).len(), 2, "what was there stays");
}

#[test]
fn a_place_that_can_t_be_written_is_named() {
    let place = AuditPlace::File("/proc/no/such/audit.log".into());
    let error = AuditLog::open(Some(&place), "node-a").expect_err("it can't be made");
    assert!(error.to_string().contains("/proc/no/such/audit.log"), "{error}");
}
