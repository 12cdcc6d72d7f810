//! What the audit log has of resources.

use kube::api::DynamicObject;
use sabot_resources::Kind;
use serde_json::{Value, json};

use crate::audit::AuditLog;
use crate::config::AuditPlace;
use crate::engine::handle::EngineError;
use crate::resources::account;
use crate::resources::object::Resource;

fn managed(manager: &str, day: u8, fields: Value) -> Value {
    json!({
        "manager": manager,
        "operation": "Apply",
        "apiVersion": "sabot.dev/v1alpha1",
        "time": format!("2030-01-{day:02}T00:00:00Z"),
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
    })
}

#[test]
fn a_line_has_the_resource_and_who_wrote_its_spec_last() {
    let object: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "sabot.dev/v1alpha1",
        "kind": "NetworkFault",
        "metadata": {"name": "cut", "namespace": "shop", "uid": "uid-1", "managedFields": [
            managed("argo", 2, json!({"f:spec": {"f:duration": {}}})),
            managed("kubectl", 1, json!({"f:spec": {"f:action": {}}})),
            managed("sabot-node-a", 3, json!({"f:status": {"f:phase": {}}})),
        ]},
        "spec": {"duration": "1m", "target": {"pods": {"name": "web"}}, "action": {"partition": {}}},
    }))
    .expect("an object");
    let resource = Resource::read(Kind::NetworkFault, &object);
    let spec = resource.spec.clone().expect("a spec");

    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("audit.log");
    let log = AuditLog::open(Some(&AuditPlace::File(path.clone())), "node-a").expect("it opens");
    account::applied(&log, &resource, &spec, Ok("in force on 1 target"));
    let refused = EngineError::Refused {
        guard: "protected-pod",
        message: "it is protected".to_owned(),
    };
    account::applied(&log, &resource, &spec, Err(&refused));
    account::revoked(&log, &resource);

    let text = std::fs::read_to_string(&path).expect("it is written");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let [_, applied, refused, revoked] = lines.as_slice() else {
        panic!("{text}")
    };
    let who = json!({
        "kind": "resource",
        "resource": "NetworkFault",
        "namespace": "shop",
        "name": "cut",
        "uid": "uid-1",
        "manager": "argo",
    });
    for line in [applied, refused, revoked] {
        assert_eq!(line["who"], who, "{line}");
        assert_eq!(line["fault"], "shop/cut");
    }
    assert_eq!(
        (&applied["method"], &applied["result"]),
        (&json!("ApplyResource"), &json!("done"))
    );
    assert!(applied["spec"]["action"]["partition"].is_object(), "{applied}");
    assert_eq!(
        (&refused["result"], &refused["guard"]),
        (&json!("refused"), &json!("protected-pod"))
    );
    assert_eq!(revoked["method"], "RevokeResource");
}
