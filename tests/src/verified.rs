//! What the daemon's log says of the programs that it loaded.

/// Makes a daemon tell it.
pub const FLAGS: [&str; 2] = ["--log-level", "info,sabotd::kernel::verified=debug"];
/// The verifier's bound is a million instructions; ours is half of that.
pub const MOST_INSTRUCTIONS: u64 = 500_000;
/// Those behind the gate; without them there is no fault.
pub const ALWAYS: [&str; 4] = ["fault_egress", "fault_ingress", "fault_line", "fault_segmenter"];

/// What it took to load one program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    pub program: String,
    /// That the verifier went through; kernels before 5.16 keep it to themselves.
    pub instructions: Option<u64>,
    pub micros: u64,
}

/// All programs that a daemon started with [`FLAGS`] has loaded, in that order.
pub fn loaded(log: &str) -> Vec<Loaded> {
    let line = |line: &str| {
        let instructions: u64 = field(line, "instructions")?.parse().ok()?;
        Some(Loaded {
            program: field(line, "program")?.to_owned(),
            instructions: (instructions > 0).then_some(instructions),
            micros: field(line, "micros")?.parse().ok()?,
        })
    };
    log.lines().filter_map(line).collect()
}

/// The value of a field in a line of the log.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(&format!("{name}="))?;
    Some(rest.split_whitespace().next()?.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_about_programs_are_found_among_others() {
        let log = "INFO sabotd::app: serving node=\"a\"\n\
                   DEBUG sabotd::kernel::verified: loaded program=\"fault_line\" instructions=1234 micros=56\n\
                   DEBUG sabotd::kernel::verified: loaded program=\"old\" instructions=0 micros=7\n\
                   DEBUG sabotd::kernel::verified: loaded program=\"cut off\" instructions=\n";
        let expected = [("fault_line", Some(1234), 56), ("old", None, 7)];
        let expected = expected.map(|(program, instructions, micros)| Loaded {
            program: program.to_owned(),
            instructions,
            micros,
        });
        assert_eq!(loaded(log), expected);
    }
}
