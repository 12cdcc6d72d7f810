//! Where this kernel keeps what the programs read.

use sabot_abi::{NO_OFFSET, TcpOffsets};

use crate::kernel::btf::{Btf, BtfError};
use crate::kernel::offsets::cgroup_parent;

/// Reads the kernel's description of its types: some ten milliseconds.
///
/// # Errors
///
/// When it has none, or lacks one of these tracepoints, or something that the programs can't do without.
pub(super) fn offsets(tracepoints: impl Iterator<Item = &'static str>) -> Result<TcpOffsets, BtfError> {
    let kernel = Btf::kernel()?;
    kernel.require_tracepoints(tracepoints)?;
    let sock = |path| kernel.offset("sock", path);
    let tcp = |path| kernel.offset("tcp_sock", path);
    let optional = |structure, path| kernel.offset(structure, path).unwrap_or(NO_OFFSET);
    Ok(TcpOffsets {
        family: sock("__sk_common.skc_family")?,
        state: sock("__sk_common.skc_state")?,
        net: sock("__sk_common.skc_net.net")?,
        v4_remote: sock("__sk_common.skc_daddr")?,
        v4_local: sock("__sk_common.skc_rcv_saddr")?,
        // A kernel without IPv6 has neither, and no such sockets.
        v6_remote: optional("sock", "__sk_common.skc_v6_daddr"),
        v6_local: optional("sock", "__sk_common.skc_v6_rcv_saddr"),
        remote_port: sock("__sk_common.skc_dport")?,
        local_port: sock("__sk_common.skc_num")?,
        protocol: sock("sk_protocol")?,
        error: sock("sk_err")?,
        // Before 5.15 flags were mixed into the pointer: pods on the node's network are then the node's.
        cgroup: optional("sock", "sk_cgrp_data.cgroup"),
        cookie: kernel.offset("net", "net_cookie")?,
        cgroup_node: kernel.offset("cgroup", "kn")?,
        node_id: kernel.offset("kernfs_node", "id")?,
        unanswered: kernel.offset("inet_connection_sock", "icsk_retransmits")?,
        bytes_acked: tcp("bytes_acked")?,
        bytes_received: tcp("bytes_received")?,
        retransmits: tcp("total_retrans")?,
        // Since 6.7.
        rtos: optional("tcp_sock", "total_rto"),
        segments_sent: tcp("segs_out")?,
        segments_received: tcp("segs_in")?,
        srtt: tcp("srtt_us")?,
        send_window: tcp("snd_wnd")?,
        segments: kernel.offset("sk_buff", "cb")? + kernel.offset("tcp_skb_cb", "tcp_gso_segs")?,
        device: kernel.offset("sk_buff", "dev")?,
        device_net: kernel.offset("net_device", "nd_net.net")?,
        cgroup_parent: cgroup_parent(&kernel),
    })
}
