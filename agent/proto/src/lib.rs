//! The gRPC interfaces, generated from `proto/`.

/// The container runtime interface, as far as Sabot speaks it.
pub mod runtime {
    #[expect(
        unused_qualifications,
        clippy::allow_attributes_without_reason,
        clippy::too_many_lines,
        reason = "the code is generated"
    )]
    pub mod v1 {
        tonic::include_proto!("runtime.v1");
    }
}
