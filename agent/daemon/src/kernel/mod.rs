//! The only users of aya, netlink, setns and ioctl: loader, netns guard, links, maps, sweep.

pub mod features;
pub mod netns;
pub mod nsfs;
pub mod rtnl;
