//! The packet parser and the matcher of the fault programs, against plain models of both.

use std::sync::Mutex;

use arbitrary::{Arbitrary, Unstructured};
use sabot_classifier::filter::Portion;
use sabot_classifier::rule::{Case, Drawn};
use sabot_classifier::{Shown, model, parse, seen};

#[derive(Debug, Arbitrary)]
struct Input {
    rules: Vec<Drawn>,
    shown: Shown,
}

/// Bytes of a frame's beginning that lie in one piece: what is read never depends on it.
const FIRST_PIECES: [usize; 8] = [0, 45, 61, 62, 66, 76, 95, usize::MAX];

/// The programs' maps are one thread's.
static MAPS: Mutex<()> = Mutex::new(());

/// # Panics
///
/// The programs and the models are of different opinions.
pub fn check(bytes: &[u8]) {
    let Ok(Input { rules, shown }) = Input::arbitrary_take_rest(Unstructured::new(bytes)) else {
        return;
    };
    let _alone = MAPS.lock().expect("nothing was found before");
    let without_link = (!shown.has_mac_header).then_some(u16::from_be_bytes(shown.ethertype));
    let expected = model::read(&shown.frame, without_link, usize::from(shown.gso_size));
    for first_piece in FIRST_PIECES {
        let packet = parse(&shown, first_piece).map(seen);
        assert_eq!(packet, expected, "{first_piece}");
    }
    let (Ok(packet), Ok(expected)) = (parse(&shown, usize::MAX), expected) else {
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
}
