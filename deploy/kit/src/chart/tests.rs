use serde_json::json;

use super::*;

/// A chart of one template.
fn chart(template: &str) -> Chart {
    Chart {
        about: json!({"name": "x", "version": "1.2.3", "appVersion": "4.5.6"}),
        values: json!({
            "empty": "",
            "name": "inner",
            "list": [1, 2],
            "nested": {"b": 2, "a": {"on": true}},
            "gone": 1,
        }),
        helpers: "{{- define \"labels\" -}}\napp: {{ .Release.Name }}\nversion: {{ .Chart.AppVersion | quote }}\n{{- end }}\n"
            .to_owned(),
        templates: vec![("x.yaml".to_owned(), template.to_owned())],
    }
}

fn render(template: &str, overrides: &Value) -> Result<Vec<Rendered>> {
    chart(template).render(&Release::standard("Helm"), overrides)
}

fn one(template: &str) -> Value {
    let rendered = render(template, &json!({})).expect("it renders");
    let [file] = rendered.as_slice() else {
        panic!("one file, and not {rendered:?}")
    };
    assert_eq!(file.documents.len(), 1, "{}", file.text);
    file.documents[0].clone()
}

#[test]
fn helpers_are_included_with_their_indent() {
    let found = one("metadata:\n  labels:\n    {{- include \"labels\" . | nindent 4 }}\n    more: x\n");
    assert_eq!(
        found,
        json!({"metadata": {"labels": {"app": "sabot", "version": "4.5.6", "more": "x"}}})
    );
}

#[test]
fn values_become_yaml_and_text() {
    let found = one("nested:\n  {{- toYaml .Values.nested | nindent 2 }}\n\
         tag: {{ printf \"%s:%s\" .Values.name (default .Chart.AppVersion .Values.empty) | quote }}\n\
         list:\n{{- range .Values.list }}\n- {{ . }}\n{{- end }}\n");
    assert_eq!(
        found,
        json!({"nested": {"a": {"on": true}, "b": 2}, "tag": "inner:4.5.6", "list": [1, 2]})
    );
}

#[test]
fn overrides_merge_replace_and_remove() {
    let overrides = json!({"nested": {"a": {"on": false}}, "list": [3], "gone": null});
    let rendered = render("values:\n  {{- toYaml .Values | nindent 2 }}\n", &overrides).expect("it renders");
    let values = &rendered[0].documents[0]["values"];
    assert_eq!(values["nested"], json!({"a": {"on": false}, "b": 2}));
    assert_eq!(values["list"], json!([3]));
    assert_eq!(values.get("gone"), None);
}

#[test]
fn what_is_switched_off_is_no_manifest() {
    let template = "{{- if .Values.empty }}\nkind: X\n{{- end }}\n";
    assert!(render(template, &json!({})).expect("it renders").is_empty());
    let rendered = render(template, &json!({"empty": "not"})).expect("it renders");
    assert_eq!(rendered[0].documents, [json!({"kind": "X"})]);
}

#[test]
fn mistakes_name_the_template() {
    for (template, expected) in [
        ("a: {{ .Values.name | shout }}", "shout"),
        ("a: {{ include \"nothing\" . }}", "nothing"),
        ("a: {{ .Values.name", "x.yaml"),
        ("a: [", "YAML"),
    ] {
        let error = format!("{:#}", render(template, &json!({})).expect_err(template));
        assert!(error.contains("x.yaml") && error.contains(expected), "{error}");
    }
}
