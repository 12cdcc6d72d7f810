//! Inputs that are a little, and sometimes a lot, beside those of a corpus.

use std::collections::HashSet;
use std::ops::Range;

use sabot_testkit::dice::Dice;

/// As the fuzz targets are given.
const LONGEST: usize = 4096;
/// Bytes at the edges of what they count.
const EDGES: [u8; 8] = [0, 1, 2, 0x3f, 0x40, 0x7f, 0x80, 0xff];
/// Numbers at the edges of percents, ports, lengths and integers, as texts write them.
const NUMBERS: [&str; 14] = [
    "0",
    "1",
    "-1",
    "0.5",
    "99",
    "100",
    "101",
    "1000",
    "65535",
    "65536",
    "4294967296",
    "9223372036854775808",
    "18446744073709551616",
    "1e30",
];

/// Inputs without end, which follow from a seed.
pub(crate) struct Mutations {
    corpus: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
    dice: Dice,
}

impl Iterator for Mutations {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut bytes = self.dice.pick(&self.corpus).clone();
        // Mostly few: what is far from the corpus is refused at once.
        let changes = 1 + self.dice.number().trailing_zeros();
        for _ in 0..changes {
            self.change(&mut bytes);
        }
        bytes.truncate(LONGEST);
        Some(bytes)
    }
}

impl Mutations {
    /// # Panics
    ///
    /// The corpus is empty.
    pub(crate) fn new(corpus: Vec<Vec<u8>>, words: Vec<Vec<u8>>, seed: u64) -> Self {
        assert!(!corpus.is_empty(), "there is nothing to begin with");
        let dice = Dice::new(seed);
        Self { corpus, words, dice }
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        match self.dice.roll(9) {
            0 => self.flip(bytes),
            1 => self.set(bytes),
            2 => self.add(bytes),
            3 => {
                bytes.drain(self.part(bytes.len()));
            }
            4 => {
                let part = bytes[self.part(bytes.len())].to_vec();
                let at = self.below(bytes.len() + 1);
                bytes.splice(at..at, part);
            }
            5 => {
                let part = bytes[self.part(bytes.len())].to_vec();
                let at = self.below(bytes.len() + 1);
                let end = bytes.len().min(at + part.len());
                bytes.splice(at..end, part);
            }
            6 => self.word(bytes),
            7 => self.cross(bytes),
            _ => self.count(bytes),
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.dice.roll(bound as u64) as usize
    }

    /// A part of so many bytes, mostly a short one.
    fn part(&mut self, length: usize) -> Range<usize> {
        let from = self.below(length + 1);
        let most = 1 << self.below(10);
        from..length.min(from + 1 + self.below(most))
    }

    fn flip(&mut self, bytes: &mut [u8]) {
        if !bytes.is_empty() {
            let at = self.below(bytes.len());
            bytes[at] ^= 1 << self.below(8);
        }
    }

    fn set(&mut self, bytes: &mut [u8]) {
        if !bytes.is_empty() {
            let at = self.below(bytes.len());
            bytes[at] = *self.dice.pick(&EDGES);
        }
    }

    /// A little more or less to an integer of either order.
    fn add(&mut self, bytes: &mut [u8]) {
        let width = 1 << self.below(4);
        let Some(last) = bytes.len().checked_sub(width) else {
            return;
        };
        let at = self.below(last + 1);
        let field = &mut bytes[at..at + width];
        let mut eight = [0; 8];
        eight[..width].copy_from_slice(field);
        let by = self.dice.roll(64).wrapping_sub(32);
        if self.dice.roll(2) == 0 {
            let sum = u64::from_le_bytes(eight).wrapping_add(by);
            field.copy_from_slice(&sum.to_le_bytes()[..width]);
        } else {
            eight[..width].reverse();
            let sum = u64::from_le_bytes(eight).wrapping_add(by);
            field.copy_from_slice(&sum.to_le_bytes()[..width]);
            field.reverse();
        }
    }

    /// A word of the dictionary, put between or over what stands there.
    fn word(&mut self, bytes: &mut Vec<u8>) {
        if self.words.is_empty() {
            return;
        }
        let word = self.dice.pick(&self.words).clone();
        let at = self.below(bytes.len() + 1);
        let over = if self.dice.roll(2) == 0 { 0 } else { word.len() };
        let end = bytes.len().min(at + over);
        bytes.splice(at..end, word);
    }

    /// The beginning of one input and the end of another.
    fn cross(&mut self, bytes: &mut Vec<u8>) {
        let other = self.dice.pick(&self.corpus).clone();
        bytes.truncate(self.below(bytes.len() + 1));
        bytes.extend(&other[self.below(other.len() + 1)..]);
    }

    /// Another number where a text has one.
    fn count(&mut self, bytes: &mut Vec<u8>) {
        let starts: Vec<usize> = (0..bytes.len())
            .filter(|&at| bytes[at].is_ascii_digit() && (at == 0 || !bytes[at - 1].is_ascii_digit()))
            .collect();
        if starts.is_empty() {
            return;
        }
        let start = *self.dice.pick(&starts);
        let length = bytes[start..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let digits = start..start + length;
        if self.dice.roll(2) == 0 {
            // As long as before, for texts whose length stands before them.
            let number = self.dice.bytes(length).into_iter().map(|byte| b'0' + byte % 10);
            bytes.splice(digits, number);
        } else {
            bytes.splice(digits, self.dice.pick(&NUMBERS).bytes());
        }
    }
}

#[test]
fn the_same_seed_makes_the_same_inputs() {
    let inputs = |seed| -> Vec<_> {
        let corpus = vec![b"percent: 50".to_vec(), vec![1, 2, 3]];
        Mutations::new(corpus, vec![b"word".to_vec()], seed)
            .take(1_000)
            .collect()
    };
    assert_eq!(inputs(1), inputs(1));
    assert_ne!(inputs(1), inputs(2));
}

#[test]
fn inputs_are_changed_in_every_way() {
    let corpus = vec![b"percent: 50".to_vec(), b"other".to_vec()];
    let inputs = Mutations::new(corpus, vec![b"word".to_vec()], 1).take(50_000);
    let inputs: HashSet<Vec<u8>> = inputs.collect();
    for (way, wanted) in [
        ("a flipped bit", "qercent: 50"),
        ("an edge", "percent\x7f 50"),
        ("a sum", "percent: 51"),
        ("a part less", "percent: "),
        ("a part twice", "percent: 50 50"),
        ("a part over another", "percent: 5 "),
        ("a word more", "percent: word50"),
        ("a word instead", "pwordnt: 50"),
        ("another end", "perther"),
        ("another number", "percent: 101"),
        ("other digits", "percent: 73"),
        ("an empty one", ""),
    ] {
        assert!(inputs.contains(wanted.as_bytes()), "{way} isn't among them");
    }
}

#[test]
fn inputs_are_never_too_long() {
    let corpus = vec![vec![b'a'; LONGEST]];
    let mut inputs = Mutations::new(corpus, vec![b"word".to_vec()], 1).take(1_000);
    assert!(inputs.all(|input| input.len() <= LONGEST));
}
