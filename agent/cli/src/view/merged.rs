//! Documents of several nodes.

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

/// A document, and whose it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct OnNode<T> {
    pub(crate) node: String,
    #[serde(flatten)]
    pub(crate) document: T,
}

/// `{"faults": [{"node": "a", …}, …], "errors": [{"node": "b", "message": "…"}]}`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Merged<T> {
    /// As the list is called in a single node's document.
    pub(crate) key: &'static str,
    pub(crate) items: Vec<OnNode<T>>,
    pub(crate) errors: Vec<NodeError>,
}

/// A node that didn't answer as it should.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct NodeError {
    pub(crate) node: String,
    pub(crate) message: String,
}

impl<T: Serialize> Serialize for Merged<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(2))?;
        map.serialize_entry(self.key, &self.items)?;
        map.serialize_entry("errors", &self.errors)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::PodDoc;

    #[test]
    fn a_documents_fields_stand_beside_its_node() {
        let pod = PodDoc {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
        };
        let merged = Merged {
            key: "pods",
            items: vec![OnNode {
                node: "a".to_owned(),
                document: pod,
            }],
            errors: vec![NodeError {
                node: "b".to_owned(),
                message: "gone".to_owned(),
            }],
        };
        let expected = serde_json::json!({
            "pods": [{"node": "a", "namespace": "shop", "name": "web"}],
            "errors": [{"node": "b", "message": "gone"}],
        });
        assert_eq!(serde_json::to_value(&merged).expect("it is JSON"), expected);
        let yaml = serde_norway::to_string(&merged).expect("it is YAML");
        assert!(
            yaml.starts_with("pods:\n- node: a\n  namespace: shop\n"),
            "{yaml}"
        );
    }
}
