//! Names of faults: as given on the command line, and made up where none is.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _};
use std::path::Path;

use sabot_core::spec::{Action, Target};

use crate::error::CliError;

/// Bytes of the part that describes the target: the whole stays easy to read and to type.
const HINT_LIMIT: usize = 32;
/// Letters and digits that are hard to confuse.
const ALPHABET: &[u8] = b"23456789abcdefghjkmnpqrstuvwxyz";
const SUFFIX_LENGTH: usize = 4;

/// Which fault is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FaultRef {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl FaultRef {
    /// From `NAME` or `NAMESPACE/NAME`, and the value of `--namespace`; both may name the namespace if they agree.
    pub(crate) fn parse(text: &str, namespace: Option<&str>) -> Result<Self, CliError> {
        let (given, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, text),
        };
        if name.is_empty() || name.contains('/') {
            return Err(CliError::Usage(format!(
                "`{text}` is not a fault's name: NAME or NAMESPACE/NAME"
            )));
        }
        match (given, namespace) {
            (Some(given), Some(option)) if given != option => Err(CliError::Usage(format!(
                "`{text}` is not in the namespace {option} that --namespace names"
            ))),
            (given, option) => Ok(Self {
                namespace: given.or(option).unwrap_or_default().to_owned(),
                name: name.to_owned(),
            }),
        }
    }
}

impl fmt::Display for FaultRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// `partition-web-x7k2`: the action, a word about the target, and chance.
pub(crate) fn generate(action: &Action, target: &Target) -> String {
    let action = match action {
        Action { drop: Some(_), .. } => "drop",
        Action { corrupt: Some(_), .. } => "corrupt",
        Action {
            duplicate: Some(_), ..
        } => "duplicate",
        Action { reorder: Some(_), .. } => "reorder",
        Action {
            rate_limit: Some(_), ..
        } => "rate-limit",
        Action { reject: Some(_), .. } => "reject",
        Action { reset: Some(_), .. } => "reset",
        Action { delay: Some(_), .. } => "delay",
        _ => "partition",
    };
    let parts = [action.to_owned(), hint(target), suffix()];
    let parts: Vec<_> = parts.into_iter().filter(|p| !p.is_empty()).collect();
    parts.join("-")
}

/// The pod's name, its selector's first value, the namespace's, device's, Service's or node's name, as far as a name may
/// hold it.
fn hint(target: &Target) -> String {
    let from_pods = target.pods.as_ref().and_then(|pods| {
        let selector = || pods.selector.as_ref();
        pods.name
            .clone()
            .or_else(|| selector()?.match_labels.values().next().cloned())
            .or_else(|| selector()?.match_expressions.first()?.values.first().cloned())
            .or_else(|| pods.namespace.clone())
    });
    let from_path = || {
        let path = target.netns.as_ref()?;
        Some(Path::new(path).file_name()?.to_string_lossy().into_owned())
    };
    let text = from_pods
        .or_else(from_path)
        .or_else(|| target.interface.clone())
        .or_else(|| target.service.as_ref().map(|service| service.name.clone()))
        .or_else(|| target.node.clone())
        .unwrap_or_default();
    let clean: String = text
        .chars()
        .map(|c| c.to_ascii_lowercase())
        .map(|c| {
            if c.is_ascii_lowercase() || c.is_ascii_digit() {
                c
            } else {
                '-'
            }
        })
        .take(HINT_LIMIT)
        .collect();
    clean.trim_matches('-').to_owned()
}

/// The standard library seeds its hashers by chance, which is all that a name needs.
fn suffix() -> String {
    let mut chance = RandomState::new().build_hasher().finish();
    let base = ALPHABET.len() as u64;
    let mut suffix = String::with_capacity(SUFFIX_LENGTH);
    for _ in 0..SUFFIX_LENGTH {
        let index = usize::try_from(chance % base).unwrap_or_default();
        suffix.push(char::from(ALPHABET[index]));
        chance /= base;
    }
    suffix
}

#[cfg(test)]
mod tests {
    use sabot_core::quick::TargetForm;
    use sabot_core::spec::Drop;

    use super::*;

    #[test]
    fn names_are_parsed_with_and_without_a_namespace() {
        let name = |text, namespace| FaultRef::parse(text, namespace).map(|n| (n.namespace, n.name));
        let ok = |namespace: &str| (namespace.to_owned(), "cut".to_owned());
        assert_eq!(name("cut", None).expect("a name"), ok(""));
        assert_eq!(name("cut", Some("a")).expect("a name"), ok("a"));
        assert_eq!(name("a/cut", None).expect("a name"), ok("a"));
        assert_eq!(name("a/cut", Some("a")).expect("a name"), ok("a"));
        for (text, namespace) in [("a/cut", Some("b")), ("", None), ("a/", None), ("a/b/c", None)] {
            let error = name(text, namespace).expect_err(text);
            assert!(matches!(error, CliError::Usage(_)), "{error}");
        }
    }

    #[test]
    fn a_made_up_name_says_what_and_whom_and_is_a_valid_one() {
        let action = Action {
            drop: Some(Drop {
                percent: Some(5.0),
                ..Drop::default()
            }),
            ..Action::default()
        };
        for (form, start) in [
            ("pods:shop/app=web", "drop-web-"),
            ("pod:shop/web-0", "drop-web-0-"),
            ("pods:shop/*", "drop-shop-"),
            ("interface:Eth_0.1", "drop-eth-0-1-"),
            ("netns:/run/netns/blue", "drop-blue-"),
        ] {
            let target: TargetForm = form.parse().expect(form);
            let name = generate(&action, &target.0);
            let suffix = name
                .strip_prefix(start)
                .unwrap_or_else(|| panic!("{form}: {name}"));
            assert_eq!(suffix.len(), SUFFIX_LENGTH);
            assert!(suffix.bytes().all(|b| ALPHABET.contains(&b)), "{name}");
        }
    }

    #[test]
    fn a_long_target_makes_a_short_name() {
        let form: TargetForm = format!("pod:shop/{}", "a".repeat(200)).parse().expect("a target");
        let name = generate(&Action::default(), &form.0);
        assert_eq!(name.len(), "partition-".len() + HINT_LIMIT + 1 + SUFFIX_LENGTH);
    }
}
