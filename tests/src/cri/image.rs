//! A container image made by hand, because a test has no registry: busybox, its applets and `/pause`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use sabot_deploy::oci::{Image, Layer};

/// Its name in the image store; sandboxes and workloads use the same image.
pub(super) const IMAGE: &str = "sabot.test/busybox:latest";
pub(super) const BUSYBOX: &str = "/bin/busybox";

/// Long enough for any test; Debian's busybox knows no `sleep infinity`.
const PAUSE: &str = "#!/bin/sh\nexec sleep 2147483647\n";

/// Writes an OCI image archive to `path`.
pub(super) fn write_archive(path: &Path, applets: &[String]) -> Result<()> {
    let image = Image {
        name: IMAGE.to_owned(),
        entrypoint: vec!["/pause".to_owned()],
        environment: vec!["PATH=/bin".to_owned()],
        labels: BTreeMap::new(),
        layer: layer(applets)?,
        compressed: false,
    };
    image.write(path)?;
    Ok(())
}

/// The one layer: `/bin/busybox`, a link for each applet, `/pause`, and directories to write to.
fn layer(applets: &[String]) -> Result<Layer> {
    let busybox = fs::read(BUSYBOX).with_context(|| format!("reading {BUSYBOX}"))?;
    ensure!(
        is_static(&busybox),
        "{BUSYBOX} is dynamically linked and can't run in an image of its own; apt-get install busybox-static"
    );
    let mut layer = Layer::default();
    for directory in ["bin", "dev", "etc", "proc", "sys", "tmp", "www"] {
        layer.directory(directory, 0o755)?;
    }
    layer.file("bin/busybox", 0o755, &busybox)?;
    layer.file("pause", 0o755, PAUSE.as_bytes())?;
    for applet in applets.iter().filter(|name| *name != "busybox") {
        layer.link(&format!("bin/{applet}"), "busybox")?;
    }
    Ok(layer)
}

/// An ELF file of 64 bits without a program header of type `PT_INTERP`.
fn is_static(elf: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, size: usize| -> Option<usize> {
        let bytes = elf.get(at..at + size)?;
        Some(
            bytes
                .iter()
                .rev()
                .fold(0, |value, byte| value << 8 | usize::from(*byte)),
        )
    };
    let headers = || {
        let (offset, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        (0..count)
            .map(|i| number(offset + i * size, 4))
            .collect::<Option<Vec<_>>>()
    };
    elf.starts_with(b"\x7fELF\x02") && headers().is_some_and(|kinds| !kinds.contains(&(PT_INTERP as usize)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linkage_is_read_from_the_headers() {
        // The test binary is dynamically linked.
        assert!(!is_static(&fs::read("/proc/self/exe").unwrap()));
        assert!(!is_static(b"#!/bin/sh\n"));
        assert!(is_static(&fs::read(BUSYBOX).unwrap()));
    }
}
