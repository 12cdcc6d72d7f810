//! The stack of the eBPF programs, as the strictest kernel counts it.
//!
//! A chain of calls has 512 bytes of it. Linux 6.1 takes every frame of a chain for a multiple of 32 bytes, newer kernels for less:
//! without this check only a guest with an old kernel would show that a program has outgrown it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use aya_obj::Object;
use aya_obj::generated::bpf_insn;
use sabot_ebpf_build::Objects;

use crate::ui;

/// Bytes of a chain of calls.
const MOST: u32 = 512;
/// What a frame is rounded up to, and the least that it is.
const UNIT: u32 = 32;
/// Functions in a chain of calls, of which the kernel allows no more.
const MOST_FRAMES: usize = 8;

const FRAME_POINTER: u8 = 10;
const REGISTERS: usize = 11;
/// What a function may change of its caller's.
const SCRATCH_REGISTERS: usize = 6;

const CLASS: u8 = 0x07;
const CLASS_LOAD: u8 = 0x01;
const CLASS_STORE_NUMBER: u8 = 0x02;
const CLASS_STORE: u8 = 0x03;
const CLASS_JUMP: u8 = 0x05;
const CLASS_JUMP32: u8 = 0x06;
const MOVE: u8 = 0xbf;
const ADD_NUMBER: u8 = 0x07;
const CALL: u8 = 0x85;
/// In the source register of a call that is no helper's.
const CALL_OF_FUNCTION: u8 = 1;

/// The deepest chain of a program: the bytes of its frames, the program's own first.
#[derive(Debug, PartialEq, Eq)]
struct Chain(Vec<u32>);

/// A function of a linked program.
#[derive(Debug, Default, PartialEq, Eq)]
struct Function {
    /// Bytes.
    frame: u32,
    /// Where those begin that it calls.
    calls: BTreeSet<usize>,
}

/// Builds the objects, and looks at each program of theirs.
///
/// # Errors
///
/// Names the programs whose stack is too large.
pub(super) fn check(root: &Path) -> Result<()> {
    let out = tempfile::tempdir().context("no folder for the objects")?;
    let mut outgrown = Vec::new();
    for path in Objects::new(root)?.build_into(out.path())? {
        let object = path.file_name().unwrap_or_default().to_string_lossy();
        let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
        let chains = chains(&bytes).with_context(|| object.to_string())?;
        let deepest = chains.values().max_by_key(|chain| chain.depth());
        let deepest = deepest.with_context(|| format!("{object} has no programs"))?;
        if deepest.depth() <= MOST {
            ui::found(&object, &deepest.to_string());
        }
        let too_deep = chains.iter().filter(|(_, chain)| chain.depth() > MOST);
        outgrown.extend(too_deep.map(|(program, chain)| format!("{object}: {program}: {chain}")));
    }
    ensure!(outgrown.is_empty(), "{}", outgrown.join("; "));
    Ok(())
}

/// By program.
fn chains(object: &[u8]) -> Result<BTreeMap<String, Chain>> {
    let mut object = Object::parse(object)?;
    let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    object.relocate_calls(&sections)?;
    let chains = object.programs.iter().map(|(name, program)| {
        let linked = &object.functions[&program.function_key()];
        let functions = functions(&linked.instructions);
        Ok((name.clone(), deepest(&functions, 0, 0)?))
    });
    chains.collect()
}

/// By where they begin.
fn functions(instructions: &[bpf_insn]) -> BTreeMap<usize, Function> {
    let all = 0..instructions.len();
    let begins: BTreeSet<usize> = all
        .clone()
        .filter_map(|at| called(instructions, at))
        .filter(|begin| all.contains(begin))
        .chain([0])
        .collect();
    let ends = begins.iter().copied().skip(1).chain([all.end]);
    let bodies = begins.iter().copied().zip(ends);
    bodies
        .map(|(begin, end)| {
            let function = Function {
                frame: frame(&instructions[begin..end]),
                calls: (begin..end).filter_map(|at| called(instructions, at)).collect(),
            };
            (begin, function)
        })
        .collect()
}

/// Where the function begins that the instruction calls.
fn called(instructions: &[bpf_insn], at: usize) -> Option<usize> {
    let instruction = &instructions[at];
    let is_call = instruction.code == CALL && instruction.src_reg() == CALL_OF_FUNCTION;
    let target = at.checked_add_signed(instruction.imm as isize + 1);
    target.filter(|_| is_call)
}

/// Bytes of the stack that a function's body reaches down to: itself, or by a pointer that it makes for others.
fn frame(body: &[bpf_insn]) -> u32 {
    let mut pointers = Pointers::default();
    let reached = body.iter().filter_map(|instruction| pointers.reach(instruction));
    reached
        .map(|lowest| lowest.min(0).unsigned_abs())
        .max()
        .unwrap_or(0)
}

/// Which registers lead to the stack, and how far from its beginning. What is spilled and comes back isn't known; it has been
/// made, and so counted, before.
struct Pointers([Option<i32>; REGISTERS]);

impl Default for Pointers {
    fn default() -> Self {
        let mut pointers = [None; REGISTERS];
        pointers[FRAME_POINTER as usize] = Some(0);
        Self(pointers)
    }
}

impl Pointers {
    /// Goes on by an instruction; returns where on the stack it leads.
    fn reach(&mut self, instruction: &bpf_insn) -> Option<i32> {
        let [to, from] = [instruction.dst_reg(), instruction.src_reg()].map(usize::from);
        let offset = i32::from(instruction.off);
        match (instruction.code, instruction.code & CLASS) {
            (MOVE, _) => {
                self.0[to] = self.0[from];
                None
            }
            (ADD_NUMBER, _) => {
                self.0[to] = self.0[to].map(|place| place + instruction.imm);
                self.0[to]
            }
            (CALL, _) => {
                self.0[..SCRATCH_REGISTERS].fill(None);
                None
            }
            (_, CLASS_JUMP | CLASS_JUMP32) => None,
            (_, CLASS_STORE | CLASS_STORE_NUMBER) => self.0[to].map(|place| place + offset),
            (_, CLASS_LOAD) => {
                let reached = self.0[from].map(|place| place + offset);
                self.0[to] = None;
                reached
            }
            _ => {
                self.0[to] = None;
                None
            }
        }
    }
}

fn deepest(functions: &BTreeMap<usize, Function>, begin: usize, callers: usize) -> Result<Chain> {
    ensure!(callers < MOST_FRAMES, "a chain of more than {MOST_FRAMES} calls");
    let function = functions.get(&begin).context("a call leads nowhere")?;
    let mut below = Chain(Vec::new());
    for called in &function.calls {
        let chain = deepest(functions, *called, callers + 1)?;
        if chain.depth() > below.depth() {
            below = chain;
        }
    }
    below.0.insert(0, function.frame);
    Ok(below)
}

impl Chain {
    /// Bytes, as the strictest kernel counts them.
    fn depth(&self) -> u32 {
        self.0
            .iter()
            .map(|frame| frame.max(&1).next_multiple_of(UNIT))
            .sum()
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frames: Vec<String> = self.0.iter().map(u32::to_string).collect();
        write!(
            f,
            "{} of {MOST} bytes of stack: {}",
            self.depth(),
            frames.join(" + ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE64: u8 = 0x7b;
    const LOAD64: u8 = 0x79;
    const EXIT: u8 = 0x95;

    fn instruction(code: u8, to: u8, from: u8, offset: i16, number: i32) -> bpf_insn {
        let registers = bpf_insn::new_bitfield_1(to, from);
        bpf_insn {
            code,
            _bitfield_align_1: [],
            _bitfield_1: registers,
            off: offset,
            imm: number,
        }
    }

    fn store(offset: i16) -> bpf_insn {
        instruction(STORE64, FRAME_POINTER, 1, offset, 0)
    }

    fn call_of(distance: i32) -> bpf_insn {
        instruction(CALL, 0, CALL_OF_FUNCTION, 0, distance)
    }

    fn exit() -> bpf_insn {
        instruction(EXIT, 0, 0, 0, 0)
    }

    fn chain(body: &[bpf_insn]) -> Chain {
        deepest(&functions(body), 0, 0).expect("a chain")
    }

    #[test]
    fn the_deepest_chain_counts_and_not_the_longest_function() {
        // The first calls the second, with 40 bytes, and the third, with 8, which calls the fourth, with 64.
        let body = [
            store(-16),
            call_of(2),
            call_of(3),
            exit(),
            store(-40),
            exit(),
            store(-8),
            call_of(1),
            exit(),
            store(-64),
            exit(),
        ];
        let chain = chain(&body);
        assert_eq!(chain, Chain(vec![16, 8, 64]));
        assert_eq!(chain.depth(), 32 + 32 + 64);
    }

    #[test]
    fn what_is_reached_by_a_pointer_counts() {
        let made = [
            instruction(MOVE, 2, FRAME_POINTER, 0, 0),
            instruction(ADD_NUMBER, 2, 0, 0, -48),
            exit(),
        ];
        assert_eq!(frame(&made), 48);
        let further = [
            instruction(MOVE, 6, FRAME_POINTER, 0, 0),
            instruction(ADD_NUMBER, 6, 0, 0, -8),
            instruction(CALL, 0, 0, 0, 1),
            instruction(STORE64, 6, 0, -16, 0),
            exit(),
        ];
        assert_eq!(frame(&further), 24);
        let loaded = [instruction(LOAD64, 1, FRAME_POINTER, -32, 0), exit()];
        assert_eq!(frame(&loaded), 32);
    }

    #[test]
    fn other_pointers_are_none_of_the_stacks() {
        let body = [
            instruction(MOVE, 2, FRAME_POINTER, 0, 0),
            instruction(LOAD64, 2, 1, 0, 0),
            instruction(ADD_NUMBER, 2, 0, 0, -300),
            instruction(MOVE, 3, FRAME_POINTER, 0, 0),
            instruction(CALL, 0, 0, 0, 1),
            instruction(STORE64, 3, 1, -200, 0),
            exit(),
        ];
        assert_eq!(frame(&body), 0);
    }

    #[test]
    fn a_frame_is_a_multiple_of_its_unit_and_never_nothing() {
        let of = |frames: &[u32]| Chain(frames.to_vec()).depth();
        assert_eq!(
            [of(&[0]), of(&[32]), of(&[33]), of(&[0, 0, 12])],
            [32, 32, 64, 96]
        );
    }

    #[test]
    fn a_call_that_leads_nowhere_and_one_of_itself_are_errors() {
        for distance in [5, -1] {
            let functions = functions(&[call_of(distance), exit()]);
            assert!(deepest(&functions, 0, 0).is_err(), "{distance}");
        }
    }
}
