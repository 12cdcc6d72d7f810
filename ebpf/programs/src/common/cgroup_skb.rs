//! What a program at a cgroup's sockets is given: a packet, and the socket that sends or takes it.

use aya_ebpf::programs::SkBuffContext;

use crate::memory::read;
use crate::owners;

/// The address of the socket.
#[inline(always)]
pub fn socket(ctx: &SkBuffContext) -> Option<u64> {
    // SAFETY: the context is valid while the program runs.
    let sock = unsafe { (*ctx.skb.skb).__bindgen_anon_2.sk };
    // The verifier lets nobody calculate with the pointer, but read the place where it stands.
    read::<u64>(&raw const sock as u64, 0).filter(|&sock| sock != 0)
}

/// Whose it is; `None` where nobody is known.
#[inline(always)]
pub fn owner(sock: u64) -> Option<u32> {
    owners::of(owners::net_of_sock(sock)?, sock)
}

/// The part of the packet that can be read at once, from the IP header on.
pub struct Start {
    data: usize,
    end: usize,
}

#[inline(always)]
pub fn packet(ctx: &SkBuffContext) -> Start {
    // SAFETY: the context is valid while the program runs.
    unsafe {
        Start {
            data: (*ctx.skb.skb).data as usize,
            end: (*ctx.skb.skb).data_end as usize,
        }
    }
}

impl Start {
    #[inline(always)]
    pub fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        if self.data + at + N > self.end {
            return None;
        }
        // SAFETY: the bytes are within the packet, and any bytes are valid.
        Some(unsafe { *((self.data + at) as *const [u8; N]) })
    }
}
