//! The members of the kernel's structures that programs read, where the kernel that runs has them.

use sabot_abi::{NO_OFFSET, NetOffsets, SkbOffsets};

use super::btf::{Btf, BtfError};

/// From packets and sockets to namespaces and cgroups.
///
/// # Errors
///
/// Names the member that this kernel doesn't have.
pub(super) fn of_net(btf: &Btf) -> Result<NetOffsets, BtfError> {
    // Without them pods on the node's own network can't be told from the node.
    let optional = |structure, path| btf.offset(structure, path).unwrap_or(NO_OFFSET);
    let mut offsets = NetOffsets {
        net_cookie: btf.offset("net", "net_cookie")?,
        net_loopback: btf.offset("net", "loopback_dev")?,
        device_net: btf.offset("net_device", "nd_net.net")?,
        sock_net: btf.offset("sock", "__sk_common.skc_net.net")?,
        sock_family: btf.offset("sock", "__sk_common.skc_family")?,
        sock_state: btf.offset("sock", "__sk_common.skc_state")?,
        sock_cgroup: optional("sock", "sk_cgrp_data.cgroup"),
        cgroup_node: optional("cgroup", "kn"),
        node_id: optional("kernfs_node", "id"),
        cgroup_parent: cgroup_parent(btf),
    };
    if offsets.cgroup_node == NO_OFFSET || offsets.node_id == NO_OFFSET {
        offsets.sock_cgroup = NO_OFFSET;
    }
    Ok(offsets)
}

/// From a cgroup to its parent.
pub(super) fn cgroup_parent(btf: &Btf) -> u32 {
    let inner = btf.offset("cgroup", "self.parent");
    match (btf.offset("cgroup", "self"), inner) {
        // Only so is the parent's `self` the parent.
        (Ok(0), Ok(parent)) => parent,
        _ => NO_OFFSET,
    }
}

/// Inside packets.
///
/// # Errors
///
/// Names the member that this kernel doesn't have.
pub(super) fn of_skb(btf: &Btf) -> Result<SkbOffsets, BtfError> {
    let skb = |path| btf.offset("sk_buff", path);
    Ok(SkbOffsets {
        head: skb("head")?,
        data: skb("data")?,
        end: skb("end")?,
        len: skb("len")?,
        dev: skb("dev")?,
        sk: skb("sk")?,
        dst: skb("_skb_refdst")?,
        classifier_words: skb("cb")? + btf.offset("qdisc_skb_cb", "data")?,
        skb_iif: skb("skb_iif")?,
        vlan_tci: skb("vlan_tci")?,
        protocol: skb("protocol")?,
        mac_header: skb("mac_header")?,
        network_header: skb("network_header")?,
        transport_header: skb("transport_header")?,
        gso_size: btf.offset("skb_shared_info", "gso_size")?,
        gso_segs: btf.offset("skb_shared_info", "gso_segs")?,
        dst_dev: btf.offset("dst_entry", "dev")?,
        device_name: btf.offset("net_device", "name")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_that_runs_has_them_all() {
        let btf = Btf::kernel().expect("the kernel describes its types");
        let net = of_net(&btf).expect("namespaces are where programs look for them");
        assert!(net.sock_cgroup != NO_OFFSET && net.cgroup_parent != NO_OFFSET);
        let skb = of_skb(&btf).expect("packets are what programs take them for");
        assert!(skb.classifier_words > skb.sk && skb.classifier_words < skb.len);
    }
}
