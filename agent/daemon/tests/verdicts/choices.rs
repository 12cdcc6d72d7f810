//! Which of the packets that a rule names it acts upon, over longer sequences than the property test's.

use sabot_core::loss::GilbertElliott;
use sabot_core::model::{Action, Handshake, Loss, LossModel};
use sabotd::engine::handle::LedgerDirection;
use sabotd::kernel::trial::Verdict;

use crate::chances::{Chances, Factor};
use crate::frame::{ACK, Frame, RST, SYN, sctp, tcp, udp};
use crate::rig::{BOTH, Egress, IDENTITY, Ingress, Rig, SEED, cut, drop, lose, rule, share, single, ways};

const ROUNDS: usize = 5_000;

fn chain() -> LossModel {
    LossModel::GilbertElliott(GilbertElliott {
        p: 0.02,
        r: 0.25,
        loss_good: 0.01,
        loss_bad: 0.8,
    })
}

fn is_cut(rig: &Rig, direction: LedgerDirection, frame: &Frame) -> bool {
    let verdict = rig.run(direction, &single(&frame.bytes())).verdict;
    assert!(
        verdict == Verdict::Pass || verdict == cut(direction),
        "{verdict:?}"
    );
    verdict != Verdict::Pass
}

/// What becomes of so many packets of one connection.
fn fates(rig: &Rig, direction: LedgerDirection) -> Vec<bool> {
    let frame = Frame::new("10.0.0.1", "10.0.0.2", udp(1, 2)).bytes();
    let frame = single(&frame);
    let run = |_| rig.run(direction, &frame).verdict != Verdict::Pass;
    (0..ROUNDS).map(run).collect()
}

fn predicted(model: LossModel, seed: u64, direction: LedgerDirection) -> Vec<bool> {
    let frame = Frame::new("10.0.0.1", "10.0.0.2", udp(1, 2));
    let mut chances = Chances::new(seed, IDENTITY, direction);
    let fate = |_| chances.loses(&model, seed, Factor::WHOLE, &frame);
    (0..ROUNDS).map(fate).collect()
}

#[test]
fn a_seed_says_each_verdict() {
    for (words, model) in ways().into_iter().flat_map(|words| {
        let models = [LossModel::Percent(share(30.0)), chain(), LossModel::EveryNth(7)];
        models.map(|model| (words, model))
    }) {
        let mut all = Vec::new();
        for seed in [SEED, SEED, 1, 0, u64::MAX] {
            let mut body = rule(lose(model));
            body.seed = seed;
            let rig = Rig::of(words).under(&body);
            for direction in BOTH {
                let seen = fates(&rig, direction);
                assert_eq!(
                    seen,
                    predicted(model, seed, direction),
                    "{words:?} {model:?} {seed} {direction:?}"
                );
                all.push(seen);
            }
        }
        assert_eq!(all[..2], all[2..4], "the same seed again");
        if !matches!(model, LossModel::EveryNth(_)) {
            assert_ne!(all[0], all[1], "the other direction");
            assert_ne!(all[0], all[4], "another seed");
        }
    }
}

#[test]
fn another_target_has_another_stream() {
    let mut rig = Rig::with_rule(&rule(drop(50.0)));
    let here = fates(&rig, Egress);
    rig.clear();
    rig.equip(|target| target.identity = IDENTITY + 1);
    rig.put(crate::rig::SLOT, &rule(drop(50.0)));
    rig.list(&[crate::rig::SLOT]);
    assert_ne!(fates(&rig, Egress), here);
}

#[test]
fn an_edit_goes_on_where_the_stream_is() {
    let mut rig = Rig::with_rule(&rule(drop(50.0)));
    let mut seen = fates(&rig, Egress);
    rig.put(crate::rig::SLOT, &rule(drop(50.0)));
    seen.extend(fates(&rig, Egress));
    let frame = Frame::new("10.0.0.1", "10.0.0.2", udp(1, 2));
    let mut chances = Chances::new(SEED, IDENTITY, Egress);
    let model = LossModel::Percent(share(50.0));
    for was_cut in seen {
        assert_eq!(chances.loses(&model, SEED, Factor::WHOLE, &frame), was_cut);
    }
}

fn with_flags(mut frame: Frame, flags: u8, sequence: u32) -> Frame {
    (frame.flags, frame.sequence) = (flags, sequence);
    frame
}

#[test]
fn the_first_packets_are_those_of_each_connection() {
    for words in ways() {
        let rig = Rig::of(words).under(&rule(lose(LossModel::FirstOfConnection(2))));
        assert_first_packets(&rig);
    }
}

fn assert_first_packets(rig: &Rig) {
    for port in [1, 2, 3] {
        let packet = |flags, sequence| {
            with_flags(
                Frame::new("10.0.0.1", "10.0.0.2", tcp(port, 443)),
                flags,
                sequence,
            )
        };
        for (what, frame, lost) in [
            ("unknown to us", packet(ACK, 900), false),
            ("its SYN", packet(SYN, 100), true),
            ("its SYN again", packet(SYN, 100), true),
            ("its SYN once more", packet(SYN, 100), false),
            ("established", packet(ACK, 101), false),
            ("another connection's SYN", packet(SYN, 500), true),
            ("its data", packet(ACK, 501), true),
            ("the rest", packet(ACK, 502), false),
            ("its end", packet(RST, 503), false),
        ] {
            assert_eq!(is_cut(rig, Egress, &frame), lost, "{what}, port {port}");
        }
    }
    // The other direction begins with the answer to the SYN.
    let answer =
        |flags, sequence| with_flags(Frame::new("10.0.0.2", "10.0.0.1", tcp(443, 1)), flags, sequence);
    for (frame, lost) in [
        (answer(ACK, 1), false),
        (answer(SYN | ACK, 7), true),
        (answer(ACK, 8), true),
        (answer(ACK, 9), false),
    ] {
        assert_eq!(is_cut(rig, Ingress, &frame), lost);
    }
    for transport in [udp(5, 6), sctp(5, 6)] {
        let frame = Frame::new("fd00::1", "fd00::2", transport);
        let seen = [(); 4].map(|()| is_cut(rig, Egress, &frame));
        assert_eq!(seen, [true, true, false, false], "{transport:?}");
    }
}

#[test]
fn connections_of_a_former_fault_are_forgotten() {
    let body = rule(lose(LossModel::FirstOfConnection(1)));
    let mut rig = Rig::new();
    let frame = Frame::new("10.0.0.1", "10.0.0.2", udp(1, 2));
    for _ in 0..3 {
        rig.put(crate::rig::SLOT, &body);
        rig.list(&[crate::rig::SLOT]);
        assert!(is_cut(&rig, Egress, &frame));
        assert!(!is_cut(&rig, Egress, &frame));
        rig.clear();
    }
}

#[test]
fn flows_are_lost_as_a_whole_and_seen_alike_from_both_ends() {
    const FLOWS: u16 = 3_000;
    let rig = Rig::with_rule(&rule(lose(LossModel::Flows(share(20.0)))));
    for (one, other) in crate::matching::FAMILIES {
        let mut lost = 0;
        for port in 0..FLOWS {
            let out = Frame::new(one, other, tcp(10_000 + port, 443));
            let back = Frame::new(other, one, tcp(443, 10_000 + port));
            let fate = is_cut(&rig, Egress, &out);
            for (direction, frame) in [(Egress, &out), (Ingress, &back), (Egress, &back), (Ingress, &out)] {
                assert_eq!(is_cut(&rig, direction, frame), fate, "{frame:?}");
            }
            lost += u32::from(fate);
        }
        let mean = f64::from(FLOWS) * 0.2;
        let deviation = (mean * 0.8).sqrt();
        assert!(
            (f64::from(lost) - mean).abs() < 4.0 * deviation,
            "{lost} of {FLOWS} flows are lost at 20 %"
        );
    }
}

#[test]
fn handshakes_are_told_from_everything_else() {
    let frame = |flags| with_flags(Frame::new("10.0.0.1", "10.0.0.2", tcp(1, 2)), flags, 1);
    for (only, [syn, answer]) in [(Handshake::Syn, [true, false]), (Handshake::Both, [true, true])] {
        let rig = Rig::with_rule(&rule(Action::Drop(Loss {
            model: LossModel::Percent(share(100.0)),
            only: Some(only),
        })));
        for direction in BOTH {
            assert_eq!(is_cut(&rig, direction, &frame(SYN)), syn, "{only:?}");
            assert_eq!(is_cut(&rig, direction, &frame(SYN | ACK)), answer, "{only:?}");
            for flags in [ACK, RST, RST | ACK, 0, 0x18, 0x11] {
                assert!(!is_cut(&rig, direction, &frame(flags)), "{only:?} {flags:#x}");
            }
            // What stands where TCP has its flags.
            let datagram = Frame::new("10.0.0.1", "10.0.0.2", udp(0x0202, 0x0202));
            assert!(!is_cut(&rig, direction, &datagram));
        }
        let counters = rig.counters(Egress);
        assert_eq!(
            counters.matched.packets,
            counters.passed.packets + counters.dropped.packets
        );
    }
}
