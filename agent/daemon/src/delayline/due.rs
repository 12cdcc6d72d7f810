//! What is due, line by line, so that one line's backlog doesn't hold up the others.
//!
//! Lines that have something due take turns (deficit round robin, where the cost of a frame is its length and a share for
//! the system call): however much of one line falls due at once, another line's packet waits for one turn of each line at
//! most. Within a line the order is that of insertion.

use std::collections::VecDeque;

use super::arena::{Arena, BY_TIME, List};

/// What a line may release in its turn: a super-packet, or some dozens of small frames. In bytes.
const TURN: u32 = 64 << 10;
/// What a frame costs beside its length, in bytes that could be copied meanwhile.
const FRAME: u32 = 2 << 10;

#[derive(Debug, Default)]
pub(super) struct Due {
    /// By line.
    lines: Vec<Queue>,
    /// Lines with something due in the order of their turns; among them some whose frames are gone already.
    turns: VecDeque<u32>,
    /// What the line whose turn it is has used of it.
    used: u32,
    count: usize,
}

#[derive(Debug, Default)]
struct Queue {
    frames: List<BY_TIME>,
    /// It is in `turns`.
    waiting: bool,
}

impl Due {
    pub(super) fn push(&mut self, arena: &mut Arena, index: u32) {
        let line = arena[index].line;
        if line as usize >= self.lines.len() {
            self.lines.resize_with(line as usize + 1, Queue::default);
        }
        let queue = &mut self.lines[line as usize];
        queue.frames.push_back(arena, index);
        self.count += 1;
        if !queue.waiting {
            queue.waiting = true;
            self.turns.push_back(line);
        }
    }

    pub(super) fn unlink(&mut self, arena: &mut Arena, index: u32) {
        let line = arena[index].line as usize;
        self.lines[line].frames.unlink(arena, index);
        self.count -= 1;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The next frame, still in its list; it counts as released.
    pub(super) fn next(&mut self, arena: &Arena) -> Option<u32> {
        while let Some(&line) = self.turns.front() {
            let queue = &mut self.lines[line as usize];
            let first = queue.frames.first();
            if let Some(index) = first.filter(|_| self.used < TURN) {
                self.used += FRAME + arena[index].length;
                return Some(index);
            }
            self.turns.pop_front();
            self.used = 0;
            queue.waiting = first.is_some();
            if queue.waiting {
                self.turns.push_back(line);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delayline::arena::Held;

    fn push(arena: &mut Arena, due: &mut Due, line: u32, length: u32) -> u32 {
        let mut held = Held::new(Box::default());
        held.line = line;
        held.length = length;
        let index = arena.insert(held);
        due.push(arena, index);
        index
    }

    /// The lines of the next frames, in their order.
    fn release(arena: &mut Arena, due: &mut Due, count: usize) -> Vec<u32> {
        let mut one = || {
            let index = due.next(arena)?;
            due.unlink(arena, index);
            Some(arena.take(index).line)
        };
        (0..count).map_while(|_| one()).collect()
    }

    #[test]
    fn a_backlog_delays_another_line_by_one_turn() {
        for length in [60, 1500, 65_000] {
            let (mut arena, mut due) = (Arena::default(), Due::default());
            for _ in 0..5000 {
                push(&mut arena, &mut due, 0, length);
            }
            release(&mut arena, &mut due, 100);
            push(&mut arena, &mut due, 7, 60);
            let lines = release(&mut arena, &mut due, 4901);
            let before = lines.iter().position(|&line| line == 7).expect("it is released");
            let turn = TURN.div_ceil(FRAME + length) as usize;
            assert!(before <= turn, "{before} frames of {length} B went first");
            assert_eq!(lines.len(), 4901);
            assert!(due.is_empty());
        }
    }

    #[test]
    fn lines_with_a_backlog_get_equal_shares_of_the_work() {
        let (mut arena, mut due) = (Arena::default(), Due::default());
        let lengths = [60, 1500, 65_000];
        for (line, length) in (0..).zip(lengths) {
            for _ in 0..4000 {
                push(&mut arena, &mut due, line, length);
            }
        }
        let mut cost = [0; 3];
        for line in release(&mut arena, &mut due, 3000) {
            cost[line as usize] += FRAME + lengths[line as usize];
        }
        let (least, most) = (cost.iter().min().unwrap(), cost.iter().max().unwrap());
        assert!(most - least <= TURN + FRAME + 65_000, "{cost:?}");
    }

    #[test]
    fn frames_that_are_taken_away_leave_no_turn_behind() {
        let (mut arena, mut due) = (Arena::default(), Due::default());
        let frames: Vec<u32> = (0..4).map(|line| push(&mut arena, &mut due, line, 60)).collect();
        for &index in &frames[..3] {
            due.unlink(&mut arena, index);
            arena.take(index);
        }
        assert_eq!(due.next(&arena), Some(frames[3]));
        assert!(!due.is_empty());
        due.unlink(&mut arena, frames[3]);
        assert!(due.is_empty());
        assert_eq!(due.next(&arena), None);
        assert_eq!(
            push(&mut arena, &mut due, 1, 60),
            due.next(&arena).expect("it is due")
        );
    }
}
