use std::collections::HashMap;
use std::io::Read;

use flate2::read::GzDecoder;
use serde_json::Value;

use super::*;

fn image(compressed: bool) -> Image {
    let mut layer = Layer::default();
    layer.directory("etc", 0o755).expect("it fits");
    layer.file("etc/motd", 0o600, b"hello").expect("it fits");
    layer.link("etc/issue", "motd").expect("it fits");
    Image {
        name: "example.org/x:7".to_owned(),
        entrypoint: vec!["/x".to_owned()],
        environment: Vec::new(),
        labels: BTreeMap::new(),
        layer,
        compressed,
    }
}

/// The archive's files by their names.
fn unpack(archive: &[u8]) -> HashMap<String, Vec<u8>> {
    let mut files = HashMap::new();
    for entry in tar::Archive::new(archive).entries().expect("a tar") {
        let mut entry = entry.expect("a tar");
        let name = entry.path().expect("a path").display().to_string();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("a tar");
        files.insert(name, content);
    }
    files
}

fn written(compressed: bool) -> (HashMap<String, Vec<u8>>, Written) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.tar");
    let written = image(compressed).write(&path).expect("it is written");
    let content = fs::read(&path).expect("it is there");
    assert_eq!(written.archive, content.len() as u64);
    (unpack(&content), written)
}

fn document(files: &HashMap<String, Vec<u8>>, name: &str) -> Value {
    serde_json::from_slice(&files[name]).expect("JSON")
}

/// The blob that a descriptor names, whose digest and size it must have.
fn blob<'a>(files: &'a HashMap<String, Vec<u8>>, descriptor: &Value) -> &'a [u8] {
    let digest = descriptor["digest"].as_str().expect("it has a digest");
    let blob = &files[&format!("blobs/{}", digest.replace(':', "/"))];
    assert_eq!(self::digest(blob), digest);
    assert_eq!(descriptor["size"], blob.len());
    blob
}

#[test]
fn every_descriptor_leads_to_its_blob_in_both_formats() {
    for compressed in [false, true] {
        let (files, written) = written(compressed);
        let index = document(&files, "index.json");
        let entry = &index["manifests"][0];
        assert_eq!(entry["digest"], written.digest.as_str());
        assert_eq!(
            entry["annotations"]["io.containerd.image.name"],
            "example.org/x:7"
        );
        let manifest: Value = serde_json::from_slice(blob(&files, entry)).expect("JSON");
        let config: Value = serde_json::from_slice(blob(&files, &manifest["config"])).expect("JSON");
        let stored = blob(&files, &manifest["layers"][0]);
        let mut layer = Vec::new();
        if compressed {
            GzDecoder::new(stored).read_to_end(&mut layer).expect("gzip");
        } else {
            layer.extend_from_slice(stored);
        }
        assert_eq!(config["rootfs"]["diff_ids"][0], digest(&layer));
        assert_eq!(written.unpacked, layer.len() as u64);
        assert_eq!(unpack(&layer)["etc/motd"], b"hello");
        let kind = manifest["layers"][0]["mediaType"].as_str().expect("a kind");
        assert_eq!(kind.ends_with("+gzip"), compressed);

        let docker = document(&files, "manifest.json");
        assert_eq!(docker[0]["RepoTags"][0], "example.org/x:7");
        let path = |value: &Value| value.as_str().expect("a path").to_owned();
        assert_eq!(files[&path(&docker[0]["Layers"][0])], stored);
        assert!(files.contains_key(&path(&docker[0]["Config"])));
    }
}

#[test]
fn the_same_content_makes_the_same_image() {
    let ((first, a), (second, b)) = (written(true), written(true));
    assert_eq!(a, b);
    assert_eq!(first, second);
}

#[test]
fn modes_and_links_are_kept_and_everything_belongs_to_root() {
    let layer = image(false).layer.finish().expect("a layer");
    let mut archive = tar::Archive::new(layer.as_slice());
    let entries: Vec<_> = archive
        .entries()
        .expect("a tar")
        .map(|entry| {
            let entry = entry.expect("a tar");
            let header = entry.header();
            assert_eq!(
                (header.uid().expect("a number"), header.mtime().expect("a number")),
                (0, 0)
            );
            let path = entry.path().expect("a path").display().to_string();
            let link = entry.link_name().expect("a path");
            (
                path,
                header.mode().expect("a number"),
                link.map(|l| l.display().to_string()),
            )
        })
        .collect();
    let expected = [
        ("etc/".to_owned(), 0o755, None),
        ("etc/motd".to_owned(), 0o600, None),
        ("etc/issue".to_owned(), 0o777, Some("motd".to_owned())),
    ];
    assert_eq!(entries, expected);
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let error = image(false)
        .write(Path::new("/nowhere/x.tar"))
        .expect_err("no folder");
    assert!(format!("{error:#}").contains("/nowhere/x.tar"), "{error:#}");
}
