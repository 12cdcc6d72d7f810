//! Where the kernel that runs keeps the members of its structures, as the daemon reads it from the kernel's own description
//! of its types and tells the programs before they are loaded.

use crate::{assert_layout, pod};

/// This kernel has no such member.
pub const NO_OFFSET: u32 = u32::MAX;

/// From a packet, a device or a socket to the network namespace that it is in. In bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetOffsets {
    /// `net.net_cookie`.
    pub net_cookie: u32,
    /// `net.loopback_dev`.
    pub net_loopback: u32,
    /// `net_device.nd_net.net`.
    pub device_net: u32,
    /// `sock.__sk_common.skc_net.net`.
    pub sock_net: u32,
    /// `sock.__sk_common.skc_family`.
    pub sock_family: u32,
    /// `sock.__sk_common.skc_state`.
    pub sock_state: u32,
    /// `sock.sk_cgrp_data.cgroup`, or [`NO_OFFSET`].
    pub sock_cgroup: u32,
    /// `cgroup.kn`, or [`NO_OFFSET`].
    pub cgroup_node: u32,
    /// `kernfs_node.id`, or [`NO_OFFSET`].
    pub node_id: u32,
    /// `cgroup.self.parent`, which points to the parent's `self`, where the parent itself begins; or [`NO_OFFSET`].
    pub cgroup_parent: u32,
}
assert_layout!(NetOffsets, size = 40, align = 4);

/// Inside a packet. In bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SkbOffsets {
    pub head: u32,
    pub data: u32,
    pub end: u32,
    pub len: u32,
    pub dev: u32,
    pub sk: u32,
    /// `_skb_refdst`.
    pub dst: u32,
    /// What a classifier sees as its `cb`: `cb`, and in it `qdisc_skb_cb.data`.
    pub classifier_words: u32,
    pub skb_iif: u32,
    pub vlan_tci: u32,
    pub protocol: u32,
    pub mac_header: u32,
    pub network_header: u32,
    pub transport_header: u32,
    /// `skb_shared_info.gso_size`.
    pub gso_size: u32,
    /// `skb_shared_info.gso_segs`.
    pub gso_segs: u32,
    /// `dst_entry.dev`.
    pub dst_dev: u32,
    /// `net_device.name`.
    pub device_name: u32,
}
assert_layout!(SkbOffsets, size = 72, align = 4);

pod!(NetOffsets, SkbOffsets);
