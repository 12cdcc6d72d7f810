//! The image and the chart's pod, run by a real containerd as a kubelet would: with exactly the chart's security context,
//! mounts and environment.

mod pod;
mod scene;
