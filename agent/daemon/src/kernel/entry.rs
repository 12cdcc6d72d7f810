//! The programs that are attached: each says whose packet it is and goes through the gate.
//!
//! They are written by hand, a handful of instructions each, because one is needed for each target: loading it takes some
//! 100 us, where an object file would take milliseconds. Once loaded for a target id it is kept, and serves every later
//! target with that id.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use sabot_core::plan::TargetId;

use super::sys::{Instruction, load_classifier};

/// `TCX_NEXT` and `TC_ACT_UNSPEC`.
const PASS: i32 = -1;
/// `TC_ACT_SHOT`.
const DROP: i32 = 2;
/// `TC_ACT_STOLEN`: freed, and no drop.
const CONSUMED: i32 = 4;

const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
/// The register that leads to the stack.
const FRAME: u8 = 10;

/// `*(u64 *)(dst + offset) = src`, and the same with an operation that is atomic.
const STORE64: u8 = 0x7b;
const ATOMIC64: u8 = 0xdb;
const ADD_AND_FETCH: i32 = 1;

/// Offsets in `struct __sk_buff`.
const SKB_VLAN_PRESENT: i16 = 20;
const SKB_IFINDEX: i16 = 40;
const SKB_CB_TARGET: i16 = 48;
/// Free for us to use.
const SKB_CB_DOOR: i16 = 52;
const SKB_SK: i16 = 168;

const HELPER_TAIL_CALL: i32 = 12;
const HELPER_CLONE_REDIRECT: i32 = 13;
const HELPER_KTIME_GET_BOOT_NS: i32 = 125;
const HELPER_REDIRECT_PEER: i32 = 155;
const HELPER_SET_TSTAMP: i32 = 192;

const fn move_imm(dst: u8, imm: i32) -> Instruction {
    Instruction::new(0xb7, dst, 0, 0, imm)
}

/// Skips so many instructions when the register is 0.
const fn skip_if_zero(register: u8, skipped: i16) -> Instruction {
    Instruction::new(0x15, register, 0, skipped, 0)
}

/// Skips so many instructions unless the register is 0.
const fn skip_unless_zero(register: u8, skipped: i16) -> Instruction {
    Instruction::new(0x55, register, 0, skipped, 0)
}

const fn store32(dst: u8, offset: i16, src: u8) -> Instruction {
    Instruction::new(0x63, dst, src, offset, 0)
}

const fn load32(dst: u8, src: u8, offset: i16) -> Instruction {
    Instruction::new(0x61, dst, src, offset, 0)
}

const fn load64(dst: u8, src: u8, offset: i16) -> Instruction {
    Instruction::new(0x79, dst, src, offset, 0)
}

/// `r_dst = map`, by the map's descriptor; it takes two slots.
const fn load_map(dst: u8, fd: i32) -> [Instruction; 2] {
    const PSEUDO_MAP_FD: u8 = 1;
    [
        Instruction::new(0x18, dst, PSEUDO_MAP_FD, 0, fd),
        Instruction::new(0, 0, 0, 0, 0),
    ]
}

const fn call(helper: i32) -> Instruction {
    Instruction::new(0x85, 0, 0, 0, helper)
}

const EXIT: Instruction = Instruction::new(0x95, 0, 0, 0, 0);

/// Which program behind the gate an entry leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Door {
    Egress,
    Ingress,
    Line,
    Segmenter,
    Departures,
}

impl Door {
    fn index(self) -> u32 {
        match self {
            Self::Egress => sabot_abi::GATE_EGRESS,
            Self::Ingress => sabot_abi::GATE_INGRESS,
            Self::Line => sabot_abi::GATE_LINE,
            Self::Segmenter => sabot_abi::GATE_SEGMENTER,
            Self::Departures => sabot_abi::GATE_DEPARTURES,
        }
    }

    /// What happens when the gate is closed: a target's own traffic passes, what stands on our devices must not enter the
    /// target's stack.
    fn fallback(self) -> i32 {
        match self {
            Self::Egress | Self::Ingress => PASS,
            Self::Line | Self::Segmenter | Self::Departures => DROP,
        }
    }
}

/// Stores go through a register: before Linux 6.4 the verifier refuses immediate ones into the context.
///
/// The door's index goes through the context, so that the verifier can't know it. For an index that it knows, the kernel
/// patches a direct jump into every program, and changes them one by one with a grace period each when the gate's slot
/// changes: with 50 targets the gate took a second to close, measured on 6.18, and closes at once this way.
fn instructions(target: TargetId, gate: BorrowedFd<'_>, door: Door) -> [Instruction; 10] {
    let [map, map_high] = load_map(R2, gate.as_raw_fd());
    [
        move_imm(R2, target.0 as i32),
        store32(R1, SKB_CB_TARGET, R2),
        move_imm(R3, door.index() as i32),
        store32(R1, SKB_CB_DOOR, R3),
        load32(R3, R1, SKB_CB_DOOR),
        map,
        map_high,
        call(HELPER_TAIL_CALL),
        move_imm(R0, door.fallback()),
        EXIT,
    ]
}

/// Entry programs by target id, loaded when they are first needed.
#[derive(Default)]
pub(super) struct Entries {
    programs: Mutex<HashMap<(TargetId, Door), Arc<OwnedFd>>>,
}

impl Entries {
    pub(super) fn get(&self, target: TargetId, gate: BorrowedFd<'_>, door: Door) -> io::Result<Arc<OwnedFd>> {
        let mut programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(program) = programs.get(&(target, door)) {
            return Ok(program.clone());
        }
        let program = Arc::new(load_classifier(
            c"sabot_entry",
            &instructions(target, gate, door),
        )?);
        programs.insert((target, door), program.clone());
        Ok(program)
    }
}

/// On the far end of a way out of a target's netns and back: hands each packet straight to the near end's ingress there.
pub(super) fn load_bounce() -> io::Result<OwnedFd> {
    load_classifier(
        c"sabot_bounce",
        &[
            load32(R1, R1, SKB_IFINDEX),
            move_imm(R2, 0),
            call(HELPER_REDIRECT_PEER),
            EXIT,
        ],
    )
}

/// On the way into the departure queue: of a packet that a socket waits for (TCP's small queues) a clone goes there, which comes
/// by here, too, and the packet itself is freed. What isn't ours goes nowhere.
pub(super) fn load_hold() -> io::Result<OwnedFd> {
    load_classifier(
        c"sabot_hold",
        &[
            load32(R2, R1, SKB_VLAN_PRESENT),
            skip_if_zero(R2, 8),
            load64(R2, R1, SKB_SK),
            skip_if_zero(R2, 8),
            load32(R2, R1, SKB_IFINDEX),
            move_imm(R3, 0),
            call(HELPER_CLONE_REDIRECT),
            skip_unless_zero(R0, 2),
            move_imm(R0, CONSUMED),
            EXIT,
            move_imm(R0, DROP),
            EXIT,
            move_imm(R0, PASS),
            EXIT,
        ],
    )
}

/// A program that gives a packet a time to depart (Linux 5.18), for probes.
pub(super) fn load_departing() -> io::Result<OwnedFd> {
    load_classifier(
        c"sabot_departing",
        &[
            move_imm(R2, 0),
            move_imm(R3, 0),
            call(HELPER_SET_TSTAMP),
            move_imm(R0, PASS),
            EXIT,
        ],
    )
}

/// A program that does nothing, for probes and as the least that can be attached.
pub(super) fn load_pass() -> io::Result<OwnedFd> {
    load_classifier(c"sabot_pass", &[move_imm(R0, PASS), EXIT])
}

/// A program that adds to memory and learns what was there (Linux 5.12), as random streams need it that aren't locked.
pub(super) fn load_fetch() -> io::Result<OwnedFd> {
    load_classifier(
        c"sabot_fetch",
        &[
            move_imm(R1, 0),
            Instruction::new(STORE64, FRAME, R1, -8, 0),
            Instruction::new(ATOMIC64, FRAME, R1, -8, ADD_AND_FETCH),
            move_imm(R0, PASS),
            EXIT,
        ],
    )
}

/// A program that reads the clock of deadlines (Linux 5.8).
pub(super) fn load_boot_clock() -> io::Result<OwnedFd> {
    load_classifier(
        c"sabot_clock",
        &[call(HELPER_KTIME_GET_BOOT_NS), move_imm(R0, PASS), EXIT],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_programs_pass_the_verifier() {
        load_bounce().expect("the bounce program loads");
        load_pass().expect("the pass program loads");
        load_fetch().expect("the fetching program loads");
        load_boot_clock().expect("the clock program loads");
        load_departing().expect("the departing program loads");
        load_hold().expect("the holding program loads");
    }
}
