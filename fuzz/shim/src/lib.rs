//! As much of `aya-ebpf` as the packet code of the fault programs uses, so that it can be built for user space as it is.
//!
//! A context is a frame in memory, a map is a table of this thread. What the kernel checks before it does something is
//! checked here too, and is a panic where a program's own checks should have kept it from asking.

pub mod maps;

pub use macros;

pub mod bindings {
    pub const BPF_F_MMAPABLE: u32 = 1024;
    pub const BPF_F_NO_PREALLOC: u32 = 1;

    /// The fields of a packet's description that are read, and the frame that it stands for.
    #[expect(non_camel_case_types, reason = "the kernel's name")]
    #[derive(Debug)]
    pub struct __sk_buff {
        pub len: u32,
        /// Payload bytes of each wire packet of a super-packet; 0 for a packet that is one.
        pub gso_size: u32,
        /// The EtherType, as it stands in the frame.
        pub protocol: u32,
        pub frame: Vec<u8>,
        /// How many bytes of the frame's beginning lie in one piece.
        pub first_piece: usize,
    }
}

pub mod programs {
    use crate::bindings::__sk_buff;

    /// What a classifier is given.
    #[derive(Debug)]
    pub struct TcContext {
        skb: *mut __sk_buff,
    }

    impl TcContext {
        /// The packet must outlive it.
        pub fn new(skb: *mut __sk_buff) -> Self {
            Self { skb }
        }

        pub fn as_ptr(&self) -> *mut __sk_buff {
            self.skb
        }

        #[expect(clippy::len_without_is_empty, reason = "as aya-ebpf has it")]
        pub fn len(&self) -> u32 {
            // SAFETY: whoever made the context keeps the packet.
            unsafe { (*self.skb).len }
        }

        /// Where the first piece of the frame begins, and where it ends.
        pub fn data(&self) -> usize {
            // SAFETY: as in `len`.
            unsafe { (*self.skb).frame.as_ptr().addr() }
        }

        pub fn data_end(&self) -> usize {
            // SAFETY: as in `len`.
            self.data() + unsafe { (*self.skb).first_piece }
        }
    }
}

pub mod helpers {
    use core::ffi::c_void;

    use crate::bindings::__sk_buff;

    /// The kernel's error for a part that isn't in the packet.
    const EFAULT: i64 = -14;

    /// Copies a part of the packet.
    ///
    /// # Safety
    ///
    /// `skb` is a valid [`__sk_buff`], and `to` has room for `length` bytes.
    pub unsafe fn bpf_skb_load_bytes(skb: *const c_void, from: u32, to: *mut c_void, length: u32) -> i64 {
        // SAFETY: as the caller promises.
        let frame = unsafe { &(*skb.cast::<__sk_buff>()).frame };
        let (from, length) = (from as usize, length as usize);
        let Some(part) = frame.get(from..from + length).filter(|part| !part.is_empty()) else {
            return EFAULT;
        };
        // SAFETY: as the caller promises; a frame never overlaps with where a program copies to.
        unsafe { to.cast::<u8>().copy_from_nonoverlapping(part.as_ptr(), length) };
        0
    }
}
