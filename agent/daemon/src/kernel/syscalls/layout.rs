//! What the programs must know of this machine: where registers hold arguments, and what leads from a descriptor to its
//! file and socket.

use sabot_abi::{
    FILE_OFFSETS_FILE, FILE_OFFSETS_NAME, FILE_OFFSETS_PROGRAM, FILE_OFFSETS_SOCKET, FILE_OFFSETS_UNIX,
    FileOffsets, SYSCALL_DETAILS, SyscallDetail,
};

use crate::kernel::btf::{Btf, BtfError};

/// Of the six arguments in `struct pt_regs`, in bytes; the programs' table has two more places than there are arguments.
#[cfg(target_arch = "x86_64")]
pub(super) const ARGUMENT_OFFSETS: [u32; 8] = [112, 104, 96, 56, 72, 64, 0, 0];
/// The first one is overwritten by the result, and kept beside.
#[cfg(target_arch = "aarch64")]
pub(super) const ARGUMENT_OFFSETS: [u32; 8] = [272, 8, 16, 24, 32, 40, 0, 0];

/// The table of what is read of each syscall; numbers beyond it have no detail.
pub(super) fn details(known: &[(u32, SyscallDetail)]) -> [SyscallDetail; SYSCALL_DETAILS] {
    let mut table = [SyscallDetail::default(); SYSCALL_DETAILS];
    for &(syscall, detail) in known {
        if let Some(place) = table.get_mut(syscall as usize) {
            *place = detail;
        }
    }
    table
}

/// The offsets, and why some of them are missing. Where a group is incomplete, events lack what it leads to.
///
/// # Errors
///
/// When this kernel lacks one of these tracepoints; one that doesn't describe its types may have them.
pub(super) fn file_offsets(
    tracepoints: impl IntoIterator<Item = &'static str>,
) -> Result<(FileOffsets, Vec<BtfError>), BtfError> {
    let mut offsets = FileOffsets::default();
    let btf = match Btf::kernel() {
        Ok(btf) => btf,
        Err(error) => return Ok((offsets, vec![error])),
    };
    btf.require_tracepoints(tracepoints)?;
    let groups: [(u32, Group); 5] = [
        (FILE_OFFSETS_FILE, file),
        (FILE_OFFSETS_NAME, name),
        (FILE_OFFSETS_SOCKET, socket),
        (FILE_OFFSETS_UNIX, unix),
        (FILE_OFFSETS_PROGRAM, program),
    ];
    let mut missing = Vec::new();
    for (group, read) in groups {
        match read(&btf, &mut offsets) {
            Ok(()) => offsets.known |= group,
            Err(error) => missing.push(error),
        }
    }
    Ok((offsets, missing))
}

type Group = fn(&Btf, &mut FileOffsets) -> Result<(), BtfError>;

fn file(btf: &Btf, offsets: &mut FileOffsets) -> Result<(), BtfError> {
    offsets.task_files = btf.offset("task_struct", "files")?;
    offsets.files_fdt = btf.offset("files_struct", "fdt")?;
    offsets.fdt_max_fds = btf.offset("fdtable", "max_fds")?;
    offsets.fdt_fd = btf.offset("fdtable", "fd")?;
    offsets.file_inode = btf.offset("file", "f_inode")?;
    offsets.inode_mode = btf.offset("inode", "i_mode")?;
    Ok(())
}

fn name(btf: &Btf, offsets: &mut FileOffsets) -> Result<(), BtfError> {
    offsets.file_dentry = btf.offset("file", "f_path.dentry")?;
    offsets.dentry_name = btf.offset("dentry", "d_name.name")?;
    Ok(())
}

fn socket(btf: &Btf, offsets: &mut FileOffsets) -> Result<(), BtfError> {
    offsets.file_private = btf.offset("file", "private_data")?;
    offsets.socket_type = btf.offset("socket", "type")?;
    offsets.socket_sock = btf.offset("socket", "sk")?;
    offsets.sock_family = btf.offset("sock", "__sk_common.skc_family")?;
    offsets.sock_local_port = btf.offset("sock", "__sk_common.skc_num")?;
    offsets.sock_peer_port = btf.offset("sock", "__sk_common.skc_dport")?;
    offsets.sock_local = btf.offset("sock", "__sk_common.skc_rcv_saddr")?;
    offsets.sock_peer = btf.offset("sock", "__sk_common.skc_daddr")?;
    offsets.sock_local6 = btf.offset("sock", "__sk_common.skc_v6_rcv_saddr")?;
    offsets.sock_peer6 = btf.offset("sock", "__sk_common.skc_v6_daddr")?;
    Ok(())
}

fn unix(btf: &Btf, offsets: &mut FileOffsets) -> Result<(), BtfError> {
    offsets.unix_address = btf.offset("unix_sock", "addr")?;
    offsets.unix_peer = btf.offset("unix_sock", "peer")?;
    offsets.unix_length = btf.offset("unix_address", "len")?;
    offsets.unix_name = btf.offset("unix_address", "name")?;
    Ok(())
}

fn program(btf: &Btf, offsets: &mut FileOffsets) -> Result<(), BtfError> {
    offsets.binprm_filename = btf.offset("linux_binprm", "filename")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_describes_its_files() {
        let (offsets, missing) = file_offsets([]).expect("no tracepoint is asked for");
        assert!(missing.is_empty(), "{missing:?}");
        let all = FILE_OFFSETS_FILE
            | FILE_OFFSETS_NAME
            | FILE_OFFSETS_SOCKET
            | FILE_OFFSETS_UNIX
            | FILE_OFFSETS_PROGRAM;
        assert_eq!(offsets.known, all);
    }

    #[test]
    fn a_detail_beyond_the_table_is_left_out() {
        let detail = SyscallDetail {
            file: 1,
            ..SyscallDetail::default()
        };
        let table = details(&[(3, detail), (4095, detail)]);
        assert_eq!(table.iter().filter(|found| **found == detail).count(), 1);
        assert_eq!(table[3], detail);
    }
}
