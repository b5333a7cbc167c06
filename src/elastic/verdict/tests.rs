use super::*;

fn reply(status: u16, body: &str) -> Reply {
    Reply { status, retry_after: None, body: body.as_bytes().to_vec() }
}

/// The verdict on the only document of a bulk response.
fn item(status: u16, error: &str) -> Item {
    let body = format!(r#"{{"errors":true,"items":[{{"create":{{"status":{status},"error":{error}}}}}]}}"#);
    match judge(&reply(200, &body), 1) {
        Verdict::Items(mut items) => items.remove(0),
        other => panic!("{other:?}"),
    }
}

/// Literal responses of OpenSearch 2.19 and Elasticsearch 8.17 about one document, with the expected verdict.
#[test]
fn each_literal_answer_about_a_document_has_its_meaning() {
    const DEAD: Option<Cause> = None;
    for (status, error, expected) in [
        (
            400,
            r#"{"type":"mapper_parsing_exception","reason":"failed to parse field [n] of type [long] in document with id 'b'. Preview of field's value: 'abc'","caused_by":{"type":"illegal_argument_exception","reason":"For input string: \"abc\""}}"#,
            DEAD,
        ),
        (
            400,
            r#"{"type":"document_parsing_exception","reason":"[1:6] failed to parse field [n] of type [long] in document with id 'b'. Preview of field's value: 'abc'"}"#,
            DEAD,
        ),
        (
            400,
            r#"{"type":"strict_dynamic_mapping_exception","reason":"mapping set to strict, dynamic introduction of [a] within [_doc] is not allowed"}"#,
            DEAD,
        ),
        (400, r#"{"type":"illegal_argument_exception","reason":"Limit of total fields [1] has been exceeded"}"#, DEAD),
        (413, r#"{"type":"too_large","reason":"document too large"}"#, DEAD),
        (
            400,
            r#"{"type":"illegal_argument_exception","reason":"pipeline with id [gone] does not exist"}"#,
            Some(Cause::Index),
        ),
        (404, r#"{"type":"index_not_found_exception","reason":"no such index [t1]"}"#, Some(Cause::Index)),
        (404, r#"{"type":"resource_not_found_exception","reason":"pipeline gone"}"#, Some(Cause::Index)),
        (400, r#"{"type":"index_closed_exception","reason":"closed"}"#, Some(Cause::Index)),
        (
            403,
            r#"{"type":"cluster_block_exception","reason":"index [t1] blocked by: [FORBIDDEN/4/index closed];"}"#,
            Some(Cause::Index),
        ),
        (
            400,
            r#"{"type":"illegal_argument_exception","reason":"no write index is defined for alias [a]. The write index may be explicitly disabled using is_write_index=false"}"#,
            Some(Cause::Index),
        ),
        (
            400,
            r#"{"type":"validation_exception","reason":"Validation Failed: 1: this action would add [2] shards, but this cluster currently has [1000]/[1000] maximum normal shards open;"}"#,
            Some(Cause::Index),
        ),
        (
            429,
            r#"{"type":"es_rejected_execution_exception","reason":"rejected execution of coordinating operation"}"#,
            Some(Cause::Busy),
        ),
        (
            503,
            r#"{"type":"unavailable_shards_exception","reason":"[t1][0] primary shard is not active Timeout: [1m]"}"#,
            Some(Cause::Busy),
        ),
        (
            503,
            r#"{"type":"cluster_block_exception","reason":"blocked by: [SERVICE_UNAVAILABLE/2/no master];"}"#,
            Some(Cause::Busy),
        ),
        (500, r#""an older version's single text""#, Some(Cause::Busy)),
        (
            403,
            r#"{"type":"security_exception","reason":"action [indices:data/write/bulk[s]] is unauthorized for user [x]"}"#,
            Some(Cause::Rights),
        ),
        (
            403,
            r#"{"type":"cluster_block_exception","reason":"index [t1] blocked by: [FORBIDDEN/5/index read-only (api)];"}"#,
            Some(Cause::Blocked),
        ),
        (
            403,
            r#"{"type":"cluster_block_exception","reason":"index [t1] blocked by: [FORBIDDEN/8/index write (api)];"}"#,
            Some(Cause::Blocked),
        ),
        (
            403,
            r#"{"type":"cluster_block_exception","reason":"index [t1] blocked by: [FORBIDDEN/9/index metadata (api)];"}"#,
            Some(Cause::Blocked),
        ),
        (
            429,
            r#"{"type":"cluster_block_exception","reason":"index [t1] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark, index has read-only-allow-delete block];"}"#,
            Some(Cause::Blocked),
        ),
    ] {
        let cause = match item(status, error) {
            Item::Dead { status: of, .. } if of == status => None,
            Item::Held(held) => Some(held.cause),
            other => panic!("{error}: {other:?}"),
        };
        assert_eq!(cause, expected, "{status} {error}");
    }
    assert_eq!([item(201, "null"), item(200, "null"), item(409, "null")], [Item::Created, Item::Created, Item::Exists]);
}

#[test]
fn a_reason_carries_type_reason_and_the_cause_behind_it() {
    let error = r#"{"type":"mapper_parsing_exception","reason":"failed to parse field [n]","caused_by":{"type":"x","reason":"For input string: \"abc\""}}"#;
    let Item::Dead { reason, .. } = item(400, error) else { panic!() };
    assert_eq!(reason, "mapper_parsing_exception: failed to parse field [n]: For input string: \"abc\"");
}

/// Literal responses to whole requests.
#[test]
fn each_literal_answer_to_a_request_has_its_meaning() {
    for (status, body, expected) in [
        (302, "", Cause::Redirect),
        (401, "", Cause::Login),
        (403, r#"{"message":"forbidden"}"#, Cause::Rights),
        (
            403,
            r#"{"error":{"type":"cluster_block_exception","reason":"blocked by: [FORBIDDEN/6/cluster read-only (api)];"},"status":403}"#,
            Cause::Blocked,
        ),
        (
            429,
            r#"{"error":{"type":"cluster_block_exception","reason":"index [a] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark];"},"status":429}"#,
            Cause::Blocked,
        ),
        (
            429,
            r#"{"error":{"type":"es_rejected_execution_exception","reason":"rejected execution"},"status":429}"#,
            Cause::Busy,
        ),
        (502, "<html>bad gateway</html>", Cause::Busy),
        (404, "", Cause::NotACluster),
        (200, "<html><body>Please log in</body></html>", Cause::NotACluster),
        (200, "", Cause::NotACluster),
        (200, r#"{"errors":false}"#, Cause::NotACluster),
        (200, r#"{"errors":false,"items":[]}"#, Cause::NotACluster),
        (200, r#"{"errors":false,"items":[{"create":{"status":201}},{"create":{"status":2"#, Cause::NotACluster),
        (200, r#"{"errors":false,"items":[{"delete":{"status":200}}]}"#, Cause::NotACluster),
    ] {
        let Verdict::Held(held) = judge(&reply(status, body), 1) else { panic!("{status} {body}") };
        assert_eq!(held.cause, expected, "{status} {body}");
    }
    assert!(matches!(judge(&reply(413, ""), 5), Verdict::TooLarge(_)));
    let no_handler = r#"{"error":"no handler found for uri [/x/_bulk] and method [POST]"}"#;
    assert!(matches!(judge(&reply(400, no_handler), 5), Verdict::Malformed(why) if why.contains("no handler found")));
}

#[test]
fn every_block_has_its_own_cure() {
    for (block, cure) in [
        ("FORBIDDEN/5/index read-only (api)", "index.blocks.read_only to null"),
        ("FORBIDDEN/6/cluster read-only (api)", "cluster.blocks.read_only to null"),
        ("FORBIDDEN/8/index write (api)", "index.blocks.write"),
        ("FORBIDDEN/9/index metadata (api)", "index.blocks.metadata"),
        ("FORBIDDEN/13/cluster read-only / allow delete (api)", "cluster.blocks.read_only_allow_delete"),
        ("TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark", "disks"),
    ] {
        let body =
            format!(r#"{{"error":{{"type":"cluster_block_exception","reason":"index [a] blocked by: [{block}];"}}}}"#);
        let held = held(&reply(403, &body));
        assert!(held.cause == Cause::Blocked && held.cure().contains(cure), "{block}: {}", held.cure());
        assert!(block.contains("/12/") || block.contains("/13/") || !held.cure().contains("disks"), "{block}");
    }
}

#[test]
fn an_error_body_of_any_shape_is_shown_and_a_web_page_is_not() {
    for (body, shown) in [
        (
            r#"{"message":"The security token included in the request is invalid."}"#,
            "status 403 (The security token included in the request is invalid.)",
        ),
        (
            r#"{"Message":"User: anonymous is not authorized to perform: es:ESHttpPost"}"#,
            "status 403 (User: anonymous is not authorized to perform: es:ESHttpPost)",
        ),
        ("Forbidden by\npolicy", "status 403 (Forbidden by policy)"),
        ("<html>no</html>", "status 403"),
        (r#"{"error":{"type":"a","reason":"b"}}"#, "status 403 (a: b)"),
    ] {
        assert_eq!(describe(&reply(403, body)), shown);
    }
}

#[test]
fn reasons_of_one_cause_are_alike_in_both_products() {
    let one = "document_parsing_exception: [1:61] failed to parse field [n] of type [long] in document with id 'a'. Preview: 'x'";
    let two = "document_parsing_exception: [1:6] failed to parse field [n] of type [long] in document with id 'b'. Preview: 'y'";
    assert_eq!(common_reason(one), common_reason(two));
    let other = "mapper_parsing_exception: failed to parse field [m] of type [long] in document with id 'b'";
    assert_ne!(common_reason(one), common_reason(other));
}
