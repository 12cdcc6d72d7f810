//! The packet parser and the matcher of the fault programs, against plain models of both.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use sabot_classifier::filter::Portion;
use sabot_classifier::rule::{Case, Drawn};
use sabot_classifier::{Shown, model, parse, seen};

#[derive(Debug, Arbitrary)]
struct Input {
    rules: Vec<Drawn>,
    shown: Shown,
}

fuzz_target!(|input: Input| {
    let Input { rules, shown } = input;
    let without_link = (!shown.has_mac_header).then_some(u16::from_be_bytes(shown.ethertype));
    let expected = model::read(&shown.frame, without_link, usize::from(shown.gso_size));
    let packet = parse(&shown);
    assert_eq!(packet.map(seen), expected);
    let (Ok(packet), Ok(expected)) = (packet, expected) else {
        return;
    };
    for drawn in rules.iter().take(4) {
        let case = Case::new(drawn, expected);
        let (is_named, portion) = case.matched(packet);
        assert_eq!(is_named, case.is_named(), "{drawn:?} {expected:?}");
        let portion = match portion {
            Portion::Nothing => (false, false),
            Portion::Whole => (true, true),
            Portion::AllButLast => (true, false),
            Portion::Last => (false, true),
        };
        assert_eq!(portion, case.named_lengths(), "{drawn:?} {expected:?}");
    }
});
