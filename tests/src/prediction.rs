//! What a seeded fault must decide, computed here from what its documentation says, not from its code.

use sabot_proto::sabot::v1::Direction;

/// The random stream of a fault's seed on a target in a direction: the n-th number depends on nothing else.
#[derive(Clone, Copy, Debug)]
pub struct SeededStream {
    key: u64,
}

/// Probabilities per packet of a chain of a good and a bad state.
#[derive(Clone, Copy, Debug)]
pub struct Chain {
    pub to_bad: f64,
    pub to_good: f64,
    pub loss_good: f64,
    pub loss_bad: f64,
}

impl SeededStream {
    /// `target` is what the target is called: `netns:PATH/DEVICE` or `NAMESPACE/POD/DEVICE`.
    pub fn new(seed: u64, target: &str, direction: Direction) -> Self {
        let direction = match direction {
            Direction::Ingress => 1,
            _ => 0,
        };
        Self {
            key: finish(finish(seed ^ name_hash(target)).wrapping_add(direction)),
        }
    }

    /// Number `n`, from 0 on.
    pub fn number(self, n: u64) -> u64 {
        finish(self.key.wrapping_add(GOLDEN.wrapping_mul(n + 1)))
    }

    /// Of the first `count` packets those that a share of all chooses.
    pub fn share(self, share: f64, count: u64) -> Vec<u64> {
        let bound = bound(share);
        (0..count).filter(|&n| low(self.number(n)) < bound).collect()
    }

    /// Of the first `count` packets those that a chain loses, which starts in its good state.
    pub fn chain(self, chain: Chain, count: u64) -> Vec<u64> {
        let mut bad = false;
        let mut lost = Vec::new();
        for n in 0..count {
            let number = self.number(n);
            let (loss, turn) = if bad {
                (chain.loss_bad, chain.to_good)
            } else {
                (chain.loss_good, chain.to_bad)
            };
            if low(number) < bound(loss) {
                lost.push(n);
            }
            if number >> 32 < bound(turn) {
                bad = !bad;
            }
        }
        lost
    }
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// What SplitMix64 makes of its state.
fn finish(state: u64) -> u64 {
    let a = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let b = (a ^ a >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    b ^ b >> 31
}

/// 64-bit FNV-1a.
fn name_hash(name: &str) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in name.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    }
    hash
}

fn low(number: u64) -> u64 {
    number & 0xffff_ffff
}

/// A probability in units of 2^-32.
fn bound(probability: f64) -> u64 {
    (probability * 4_294_967_296.0).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_published_generator() {
        let stream = SeededStream { key: 1_234_567 };
        let published = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
        ];
        assert_eq!(published, [0, 1, 2].map(|n| stream.number(n)));
    }

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(name_hash(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(name_hash("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(name_hash("foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn a_chain_that_never_turns_bad_loses_as_its_good_state_does() {
        let stream = SeededStream::new(7, "a", Direction::Egress);
        let chain = Chain {
            to_bad: 0.0,
            to_good: 1.0,
            loss_good: 0.25,
            loss_bad: 1.0,
        };
        assert_eq!(stream.chain(chain, 5000), stream.share(0.25, 5000));
    }
}
