//! Faults as YAML: one document or several.

use std::fmt;

use serde::Deserialize;
use serde_norway::Deserializer;

use crate::spec::{API_VERSION, CLUSTER_KIND, KIND, Manifest};

/// Why a manifest can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestError {
    /// The document in the input, from 1 on; 0 when the input as a whole is meant.
    pub document: usize,
    /// Line and column in the whole input, from 1 on, where known.
    pub position: Option<(usize, usize)>,
    /// The field's path where known, what was given and what is allowed.
    pub message: String,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.document > 0 {
            write!(f, "document {}", self.document)?;
            if let Some((line, column)) = self.position {
                write!(f, ", line {line}, column {column}")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for ManifestError {}

/// What says which kind of document this is, whatever else it holds.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
}

/// Reads every document of a YAML text; empty documents are skipped.
///
/// # Errors
/// The first document that isn't a fault of this version, has a field that no fault has, or a value of the wrong type;
/// and an input without any document.
pub fn parse_manifests(yaml: &str) -> Result<Vec<Manifest>, ManifestError> {
    let mut manifests = Vec::new();
    // A document can be read once only, so a second pass reads its header: a document of another kind is refused for
    // its kind and not for the first of its fields that a fault doesn't have.
    let headers = Deserializer::from_str(yaml);
    for (index, (header, document)) in headers.zip(Deserializer::from_str(yaml)).enumerate() {
        let number = index + 1;
        if let Ok(Some(header)) = Option::<Header>::deserialize(header) {
            check_header(number, &header)?;
        }
        let manifest = Option::<Manifest>::deserialize(document).map_err(|e| unreadable(number, &e))?;
        if let Some(manifest) = &manifest {
            check_namespace(number, manifest)?;
        }
        manifests.extend(manifest);
    }
    if manifests.is_empty() {
        return Err(ManifestError {
            document: 0,
            position: None,
            message: format!(
                "the input is empty; allowed: documents of kind {KIND} or {CLUSTER_KIND}, {API_VERSION}"
            ),
        });
    }
    Ok(manifests)
}

fn check_header(document: usize, header: &Header) -> Result<(), ManifestError> {
    for (field, given, allowed) in [
        ("apiVersion", &header.api_version, [API_VERSION].as_slice()),
        ("kind", &header.kind, &[KIND, CLUSTER_KIND]),
    ] {
        if !allowed.contains(&given.as_str()) {
            let given = if given.is_empty() {
                "nothing".to_owned()
            } else {
                format!("`{given}`")
            };
            return Err(ManifestError {
                document,
                position: None,
                message: format!("{field}: {given} given; allowed: {}", allowed.join(", ")),
            });
        }
    }
    Ok(())
}

fn check_namespace(document: usize, manifest: &Manifest) -> Result<(), ManifestError> {
    let namespace = &manifest.metadata.namespace;
    if manifest.kind == CLUSTER_KIND && !namespace.is_empty() {
        return Err(ManifestError {
            document,
            position: None,
            message: format!(
                "metadata.namespace: `{namespace}` given; allowed: none, a {CLUSTER_KIND} is in no namespace"
            ),
        });
    }
    Ok(())
}

fn unreadable(document: usize, error: &serde_norway::Error) -> ManifestError {
    let position = error.location().map(|at| (at.line(), at.column()));
    let mut message = error.to_string();
    if let Some((line, column)) = position {
        // It moves to the front, where editors and people look for it.
        let suffix = format!(" at line {line} column {column}");
        message = message.replacen(&suffix, "", 1);
    }
    ManifestError {
        document,
        position,
        message,
    }
}

/// One YAML document, which [`parse_manifests`] reads back.
///
/// # Errors
/// A `startsAt` outside the years 1970 to 9999, which RFC 3339 can't express.
pub fn to_yaml(manifest: &Manifest) -> Result<String, ManifestError> {
    serde_norway::to_string(manifest).map_err(|error| unreadable(0, &error))
}
