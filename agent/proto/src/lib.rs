//! The gRPC interfaces: `sabot.v1` (ours) and the part of the CRI's `runtime.v1` that Sabot speaks.
//!
//! [`convert`] turns `sabot.v1`'s fault specs into the domain's and back, for daemon and client alike.

pub mod convert;

pub mod sabot {
    #[expect(
        unused_qualifications,
        clippy::allow_attributes_without_reason,
        clippy::too_many_lines,
        reason = "generated code"
    )]
    pub mod v1 {
        tonic::include_proto!("sabot.v1");
    }
}

pub mod runtime {
    #[expect(
        unused_qualifications,
        clippy::allow_attributes_without_reason,
        clippy::too_many_lines,
        reason = "generated code"
    )]
    pub mod v1 {
        tonic::include_proto!("runtime.v1");
    }
}

/// The `FileDescriptorSet` of `sabot.v1` with its comments and everything it imports, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sabot.v1.descriptors.bin"));

/// The longest message of `sabot.v1` that daemon and client take: 150,000 peers of a fault are 3 to 7 MiB of it, and a
/// list has several faults.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;
