//! A route file that is edited while it is watched.

#![allow(
    clippy::unwrap_used,
    reason = "a failed expectation is the test's result"
)]
use super::*;

fn file_with(id: &str) -> String {
    format!("routes:\n  - id: {id}\n    uri: /x\n#END\n")
}

fn first_id(table: &RouteTable) -> &str {
    &table.routes()[0].id
}

#[tokio::test]
async fn a_file_is_read_again_when_it_is_written_or_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("apisix.yaml");
    std::fs::write(&file, file_with("a")).unwrap();
    let mut watch = Watch::open(&file).unwrap();
    assert_eq!(first_id(watch.table()), "a");
    let first = watch.table().version();
    std::fs::write(&file, file_with("b")).unwrap();
    let table = watch.changed().await.unwrap();
    assert_eq!(first_id(table), "b");
    let second = table.version();
    assert!(second > first);
    let new = directory.path().join("new");
    std::fs::write(&new, file_with("c")).unwrap();
    std::fs::rename(&new, &file).unwrap();
    let table = watch.changed().await.unwrap();
    assert_eq!(first_id(table), "c");
    assert!(table.version() > second);
}

#[tokio::test]
async fn a_bad_edit_keeps_the_last_good_table_and_a_good_one_replaces_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("apisix.yaml");
    std::fs::write(&file, file_with("a")).unwrap();
    let mut watch = Watch::open(&file).unwrap();
    std::fs::write(&file, "routes: [\n#END\n").unwrap();
    assert!(watch.changed().await.is_err());
    assert_eq!(first_id(watch.table()), "a");
    std::fs::remove_file(&file).unwrap();
    let error = watch.changed().await.unwrap_err();
    assert!(error.to_string().contains("cannot be read"), "{error}");
    assert_eq!(first_id(watch.table()), "a");
    std::fs::write(&file, file_with("b")).unwrap();
    assert_eq!(first_id(watch.changed().await.unwrap()), "b");
}
