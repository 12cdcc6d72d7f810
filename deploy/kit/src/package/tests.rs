use std::fs;
use std::io::Read;

use super::*;

/// A repository with the little that a package takes from it, and binaries that are texts.
fn packed() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let repository = crate::manifests::repository();
    let binary = folder.path().join("binary");
    fs::write(&binary, "a program").expect("it is written");
    let content = Content {
        sabotd: &binary,
        sabot: &binary,
        repository: &repository,
    };
    let deb = write_deb(&content, folder.path()).expect("it is written");
    let tarball = write_tarball(&content, folder.path()).expect("it is written");
    (folder, deb, tarball)
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn dpkg_takes_the_package() {
    let (folder, deb, _) = packed();
    let deb = deb.display().to_string();
    let about = run("dpkg-deb", &["--field", &deb]);
    assert!(about.contains(&format!("Version: {VERSION}\n")), "{about}");
    assert!(about.contains("Depends: libc6 (>= 2."), "{about}");
    let target = folder.path().join("root");
    run("dpkg-deb", &["--extract", &deb, &target.display().to_string()]);
    run(
        "dpkg-deb",
        &[
            "--control",
            &deb,
            &folder.path().join("control").display().to_string(),
        ],
    );
    let text = |path: &str| fs::read_to_string(target.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    assert_eq!(text("usr/bin/kubectl-sabot"), "a program", "through the link");
    assert!(text("usr/lib/systemd/system/sabotd.service").contains("ExecStart=/usr/bin/sabotd\n"));
    let conffiles = fs::read_to_string(folder.path().join("control/conffiles")).expect("it is there");
    assert!(!text(conffiles.trim_end().trim_start_matches('/')).is_empty());
    for script in ["postinst", "prerm", "postrm"] {
        let path = folder.path().join("control").join(script);
        run("sh", &["-n", &path.display().to_string()]);
    }
}

#[test]
fn the_tarball_has_one_folder_with_the_same_files() {
    let (folder, deb, tarball) = packed();
    let listed = run("dpkg-deb", &["--contents", &deb.display().to_string()]);
    let in_deb = listed.lines().filter(|line| line.starts_with('-')).count();
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(fs::File::open(tarball).expect("it is there"))
        .read_to_end(&mut text)
        .expect("gzip");
    let mut archive = tar::Archive::new(text.as_slice());
    let mut files = 0;
    for entry in archive.entries().expect("a tar") {
        let entry = entry.expect("a tar");
        let path = entry.path().expect("a path").display().to_string();
        let root = format!("sabot-{VERSION}-linux-{}/", architecture());
        assert!(path.starts_with(&root), "{path}");
        files += usize::from(entry.header().entry_type().is_file());
    }
    assert_eq!(files, in_deb);
    drop(folder);
}

#[test]
fn the_c_librarys_version_is_the_last_word() {
    let said = "ldd (Debian GLIBC 2.36-9+deb12u10) 2.36\nCopyright\n";
    assert_eq!(last_word(said).as_deref(), Some("2.36"));
    assert_eq!(last_word("musl libc (x86_64)\n"), None);
}
