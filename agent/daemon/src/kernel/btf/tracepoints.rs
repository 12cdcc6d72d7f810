//! Tracepoints that programs are attached to by name. Without one the kernel would refuse the programs, or what they read, in
//! words that nobody understands.

use std::collections::BTreeSet;
use std::fmt;

use super::{Btf, Kind};

/// What the kernel names the type of a tracepoint's function by.
const PREFIX: &str = "btf_trace_";
/// Tracepoints that are younger than the oldest kernel that is supported, and the Linux that brought them.
const SINCE: [(&str, &str); 2] = [("sock_recv_length", "6.3"), ("sock_send_length", "6.3")];

/// This kernel doesn't have these tracepoints.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct MissingTracepoints(BTreeSet<&'static str>);

impl fmt::Display for MissingTracepoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let several = if self.0.len() == 1 { "" } else { "s" };
        write!(f, "needs the tracepoint{several} ")?;
        for (index, name) in self.0.iter().enumerate() {
            match index {
                0 => {}
                _ if index + 1 == self.0.len() => f.write_str(" and ")?,
                _ => f.write_str(", ")?,
            }
            f.write_str(name)?;
        }
        let since = |name| {
            SINCE
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, since)| since)
        };
        let versions: BTreeSet<_> = self.0.iter().filter_map(since).collect();
        match versions.last() {
            Some(version) => write!(f, ", which Linux has since {version}"),
            None => write!(f, ", which this kernel lacks"),
        }
    }
}

impl Btf {
    /// # Errors
    ///
    /// Those that this kernel doesn't have.
    pub fn require_tracepoints(
        &self,
        tracepoints: impl IntoIterator<Item = &'static str>,
    ) -> Result<(), MissingTracepoints> {
        let aliases = self.types.iter().filter(|found| found.kind == Kind::Alias);
        let known: BTreeSet<&str> = aliases
            .filter_map(|found| self.string(found.name)?.strip_prefix(PREFIX))
            .collect();
        let missing: BTreeSet<_> = tracepoints
            .into_iter()
            .filter(|name| !known.contains(name))
            .collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(MissingTracepoints(missing))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(names: &[&'static str]) -> String {
        MissingTracepoints(names.iter().copied().collect()).to_string()
    }

    #[test]
    fn what_is_missing_is_named_with_the_kernel_that_has_it() {
        assert_eq!(
            missing(&["sock_send_length", "sock_recv_length"]),
            "needs the tracepoints sock_recv_length and sock_send_length, which Linux has since 6.3"
        );
        assert_eq!(
            missing(&["kfree_skb"]),
            "needs the tracepoint kfree_skb, which this kernel lacks"
        );
        assert_eq!(
            missing(&["a", "b", "c"]),
            "needs the tracepoints a, b and c, which this kernel lacks"
        );
    }

    #[test]
    fn this_kernel_has_what_it_has() {
        let btf = Btf::kernel().expect("the kernel describes its types");
        assert_eq!(btf.require_tracepoints(["sys_enter", "kfree_skb"]), Ok(()));
        // A structure of that name is none.
        let missing = btf.require_tracepoints(["kfree_skb", "sk_buff", "no_such_tracepoint"]);
        assert_eq!(
            missing,
            Err(MissingTracepoints(["sk_buff", "no_such_tracepoint"].into()))
        );
    }

    #[test]
    fn every_young_tracepoint_is_one_of_this_kernels() {
        let btf = Btf::kernel().expect("the kernel describes its types");
        let young = SINCE.map(|(name, _)| name);
        // Older kernels than the newest of them can't tell a wrong name from a missing one.
        if let Err(error) = btf.require_tracepoints(young) {
            panic!("the tests run on kernels from 6.3 on, or a name is wrong: {error}");
        }
    }
}
