//! What a machine may lack, and what tests do then.

use std::env;

use sabot_proto::sabot::v1::{Feature, Node};

/// The features whose absence is asked for by name, with commas between.
const MAY_LACK: &str = "SABOT_MAY_LACK";

/// Looks a feature up.
///
/// # Panics
///
/// The node doesn't speak of it.
pub fn feature<'a>(node: &'a Node, name: &str) -> &'a Feature {
    let found = node.features.iter().find(|feature| feature.name == name);
    found.unwrap_or_else(|| panic!("the node doesn't say whether it has {name}"))
}

/// Whether a test can go on that is about a feature. Where it can't, it says so in a line that `cargo xtask vm` reads.
///
/// # Panics
///
/// The feature is missing, and nobody said that it may be.
pub fn needs(node: &Node, name: &str) -> bool {
    let feature = feature(node, name);
    if feature.available {
        return true;
    }
    assert!(may_lack(name), "{name} is missing: {}", feature.detail);
    println!("skipped: {name}: {}", feature.detail);
    false
}

/// Says in the same words that a test can't go on for the want of something that isn't Sabot's, and of which GetNode doesn't
/// speak.
///
/// # Panics
///
/// It is known what this machine may lack, and this isn't part of that.
pub fn lacks(name: &str, detail: &str) {
    let is_known = env::var_os(MAY_LACK).is_some();
    assert!(!is_known || may_lack(name), "{name} is missing: {detail}");
    println!("skipped: {name}: {detail}");
}

/// Whether this machine is one of those that are known not to have a feature.
pub fn may_lack(name: &str) -> bool {
    let list = env::var(MAY_LACK).unwrap_or_default();
    list.split(',').any(|allowed| allowed == name)
}
