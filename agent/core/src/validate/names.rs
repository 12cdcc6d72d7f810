//! The syntax of names, as Kubernetes and the kernel define it.

pub(crate) const LABEL_RULE: &str =
    "an RFC 1123 label: at most 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit";
pub(crate) const SUBDOMAIN_RULE: &str = "an RFC 1123 subdomain: at most 253 of a-z, 0-9, '-' and '.', each part \
     beginning and ending with a letter or digit";
pub(crate) const HOST_RULE: &str = "a DNS name, as api.example.com: at most 253 of letters, digits, '-' and '.', each part \
     of at most 63 beginning and ending with a letter or digit";
pub(crate) const LABEL_KEY_RULE: &str = "a label key: an optional DNS prefix and '/', then at most 63 of A-Z, a-z, 0-9, \
     '-', '_' and '.', beginning and ending with a letter or digit";
pub(crate) const LABEL_VALUE_RULE: &str = "a label value: empty, or at most 63 of A-Z, a-z, 0-9, '-', '_' and '.', \
     beginning and ending with a letter or digit";
pub(crate) const DEVICE_RULE: &str =
    "a device name: 1 to 15 bytes without '/', ':' or whitespace, and neither '.' nor '..'";

/// A namespace's name.
pub(crate) fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_lower_part(text)
}

/// A pod's or a fault's name.
pub(crate) fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_lower_part)
}

/// A DNS name in lower case, without the root's dot.
pub(crate) fn is_host(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

pub(crate) fn is_label_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_qualified(name),
        None => is_qualified(text),
    }
}

pub(crate) fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_qualified(text)
}

/// What the kernel's `dev_valid_name` accepts, further narrowed to printable names.
pub(crate) fn is_device(text: &str) -> bool {
    (1..=15).contains(&text.len())
        && text != "."
        && text != ".."
        && !text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control())
}

fn is_lower_part(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    has_shape(text, inner) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_qualified(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    text.len() <= 63 && has_shape(text, inner) && edge(bytes.first()) && edge(bytes.last())
}

fn has_shape(text: &str, allowed: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_subdomains_are_told_apart() {
        assert!(is_label("team-a") && is_label("0") && is_label(&"a".repeat(63)));
        for bad in ["", "Team", "-a", "a-", "a.b", "a_b", "ä", &"a".repeat(64)] {
            assert!(!is_label(bad), "{bad:?} is not a label");
        }
        assert!(is_subdomain("web-0.web.svc") && is_subdomain(&"a".repeat(253)));
        for bad in ["", ".", "a.", ".a", "a..b", "a.-b", &"a".repeat(254)] {
            assert!(!is_subdomain(bad), "{bad:?} is not a subdomain");
        }
    }

    #[test]
    fn hosts_are_made_of_labels() {
        assert!(is_host("localhost") && is_host("api.example.com") && is_host("xn--bcher-kva.example"));
        let label = "a".repeat(63);
        assert!(is_host(&[label.as_str(); 3].join(".")));
        for bad in [
            "",
            ".",
            "a.",
            "*.a",
            "a_b.c",
            "-a.b",
            "a..b",
            "a b",
            "bücher",
            &"a".repeat(64),
        ] {
            assert!(!is_host(bad), "{bad:?} is not a host");
        }
        assert!(!is_host(&[label.as_str(); 4].join(".")));
    }

    #[test]
    fn label_keys_may_have_one_prefix() {
        assert!(is_label_key("app") && is_label_key("app.kubernetes.io/name") && is_label_key("A_b.c-1"));
        for bad in ["", "/a", "a/", "a/b/c", "Upper.io/a", "-a", "a b", "a/_b"] {
            assert!(!is_label_key(bad), "{bad:?} is not a label key");
        }
        assert!(is_label_value("") && is_label_value("v1.2_x"));
        assert!(!is_label_value("-") && !is_label_value(&"a".repeat(64)));
    }

    #[test]
    fn device_names_are_the_kernels() {
        assert!(is_device("eth0") && is_device("veth@if3") && is_device("abcdefghijklmno"));
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a:1",
            "a b",
            "a\tb",
            "a\0b",
            "abcdefghijklmnop",
        ] {
            assert!(!is_device(bad), "{bad:?} is not a device name");
        }
    }
}
