//! Every way in which people and tools replace a plugin's files under a running host: no call fails
//! meanwhile, nothing is reported that is only half done, and the new version serves.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::symlink,
    path::Path,
    thread,
    time::Duration,
};

use rustix::process::Signal;

use crate::support::{
    Host,
    serving::{serving, serving_from, serving_with, until_without_a_failure},
    versions::{Files, LIBRARY, version},
};

/// Replaces version 0.1.0 in a plugin's directory by 0.2.0 in this way, while calls go on.
fn check(replace: impl FnOnce(&Path, &Files) + Send) {
    let (host, directory, mut gateway, token) = serving();
    let next = version("0.2.0");
    thread::scope(|scope| {
        scope.spawn(|| replace(&directory, &next));
        until_without_a_failure(&mut gateway, token, "0.1.0", "0.2.0");
    });
    assert!(!host.log().contains("ERROR"), "nothing was wrong");
}

#[test]
fn the_library_copied_over_and_then_its_metadata() {
    check(|directory, next| {
        fs::write(directory.join(LIBRARY), &next.library).unwrap();
        fs::write(directory.join("plugin.json"), next.metadata.to_string()).unwrap();
    });
}

#[test]
fn the_metadata_copied_over_and_then_its_library() {
    check(|directory, next| {
        fs::write(directory.join("plugin.json"), next.metadata.to_string()).unwrap();
        fs::write(directory.join(LIBRARY), &next.library).unwrap();
    });
}

#[test]
fn files_moved_over_the_old_ones() {
    check(|directory, next| {
        let elsewhere = directory.with_file_name(".elsewhere");
        next.write(&elsewhere);
        for file in [LIBRARY, "plugin.json"] {
            fs::rename(elsewhere.join(file), directory.join(file)).unwrap();
        }
    });
}

#[test]
fn files_written_under_temporary_names_beside_the_old_ones_and_renamed_as_rsync_does() {
    check(|directory, next| {
        let json = next.metadata.to_string();
        for (file, bytes) in [
            (LIBRARY, next.library.as_slice()),
            ("plugin.json", json.as_bytes()),
        ] {
            let temporary = directory.join(format!(".{file}.Xa4b2c"));
            let (first, rest) = bytes.split_at(bytes.len() / 2);
            let mut writing = File::create(&temporary).unwrap();
            writing.write_all(first).unwrap();
            writing.write_all(rest).unwrap();
            drop(writing);
            fs::rename(temporary, directory.join(file)).unwrap();
        }
    });
}

#[test]
fn the_directory_removed_and_copied_again() {
    check(|directory, next| {
        fs::remove_dir_all(directory).unwrap();
        next.write(directory);
    });
}

#[test]
fn a_directory_moved_into_the_place_of_the_old_one() {
    check(|directory, next| next.swap_in(directory));
}

#[test]
fn a_copy_that_stalls_in_the_middle_is_neither_loaded_nor_reported() {
    check(|directory, next| {
        let (first, rest) = next.library.split_at(next.library.len() / 2);
        let mut copying = File::create(directory.join(LIBRARY)).unwrap();
        copying.write_all(first).unwrap();
        thread::sleep(Duration::from_secs(1));
        copying.write_all(rest).unwrap();
        drop(copying);
        fs::write(directory.join("plugin.json"), next.metadata.to_string()).unwrap();
    });
}

#[test]
fn a_copy_in_two_parts_with_a_pause_between_them_is_neither_loaded_nor_reported() {
    check(|directory, next| {
        let half = &next.library[..next.library.len() / 2];
        fs::write(directory.join(LIBRARY), half).unwrap();
        thread::sleep(Duration::from_secs(1));
        fs::write(directory.join(LIBRARY), &next.library).unwrap();
        fs::write(directory.join("plugin.json"), next.metadata.to_string()).unwrap();
    });
}

/// Does what a kubelet does: a new directory of contents, then the link `..data` to it by a rename.
fn publish(volume: &Path, contents: &str, write: impl FnOnce(&Path)) {
    let old = fs::read_link(volume.join("..data")).ok();
    write(&volume.join(contents));
    symlink(contents, volume.join("..data_tmp")).unwrap();
    fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
    if let Some(old) = old {
        fs::remove_dir_all(volume.join(old)).unwrap();
    }
}

#[test]
fn a_kubernetes_volume_with_the_plugins_is_switched() {
    let host = Host::builder().start();
    let volume = host.plugins();
    let directory = |contents: &Path| contents.join("versioned");
    publish(&volume, "..2026_11_20_1", |contents| {
        version("0.1.0").write(&directory(contents));
    });
    symlink("..data/versioned", volume.join("versioned")).unwrap();
    let (mut gateway, token) = serving_from(&host);
    publish(&volume, "..2026_11_20_2", |contents| {
        version("0.2.0").write(&directory(contents));
    });
    until_without_a_failure(&mut gateway, token, "0.1.0", "0.2.0");
    assert!(!host.log().contains("ERROR"), "nothing was wrong");
}

#[test]
fn a_kubernetes_volume_with_one_plugin_is_switched() {
    let host = Host::builder().start();
    let volume = host.plugins().join("versioned");
    publish(&volume, "..2026_11_20_1", |contents| {
        version("0.1.0").write(contents);
    });
    for file in [LIBRARY, "plugin.json"] {
        symlink(format!("..data/{file}"), volume.join(file)).unwrap();
    }
    let (mut gateway, token) = serving_from(&host);
    publish(&volume, "..2026_11_20_2", |contents| {
        version("0.2.0").write(contents);
    });
    until_without_a_failure(&mut gateway, token, "0.1.0", "0.2.0");
    assert!(!host.log().contains("ERROR"), "nothing was wrong");
}

#[test]
fn a_plugin_directory_that_is_missing_at_the_start_may_appear_later() {
    let elsewhere = tempfile::tempdir().unwrap();
    let plugins = elsewhere.path().join("not/yet/there");
    let host = Host::builder()
        .flag("--plugin-dir", plugins.to_str().unwrap())
        .start();
    host.log_line(&["ERROR", plugins.to_str().unwrap()]);
    version("0.1.0").write(&plugins.join("versioned"));
    serving_from(&host);
}

#[test]
fn the_plugin_directory_itself_may_be_replaced() {
    let (host, _, mut gateway, token) = serving();
    let plugins = host.plugins();
    let next = plugins.with_file_name("next");
    version("0.2.0").write(&next.join("versioned"));
    fs::rename(&plugins, plugins.with_file_name("before")).unwrap();
    fs::rename(&next, &plugins).unwrap();
    until_without_a_failure(&mut gateway, token, "0.1.0", "0.2.0");
    // It is the new one that is watched.
    version("0.3.0").write(&plugins.join("versioned"));
    until_without_a_failure(&mut gateway, token, "0.2.0", "0.3.0");
    assert!(!host.log().contains("ERROR"), "nothing was wrong");
}

/// A host that serves 0.1.0, and the directory whose files are those of the plugin under another
/// name: who writes there changes the plugin, but no event tells the host.
fn serving_without_events(rescan_interval: &str) -> (Host, crate::support::Gateway, u32) {
    let builder = Host::builder().flag("--rescan-interval", rescan_interval);
    let (host, directory, gateway, token) = serving_with(builder);
    let unwatched = host.directory().join("unwatched");
    fs::create_dir(&unwatched).unwrap();
    for file in [LIBRARY, "plugin.json"] {
        fs::hard_link(directory.join(file), unwatched.join(file)).unwrap();
    }
    version("0.2.0").write(&unwatched);
    (host, gateway, token)
}

#[test]
fn without_events_a_rescan_finds_what_has_changed() {
    let (_host, mut gateway, token) = serving_without_events("200ms");
    until_without_a_failure(&mut gateway, token, "0.1.0", "0.2.0");
}

#[test]
fn without_events_a_hang_up_signal_makes_the_host_look() {
    let (host, mut gateway, token) = serving_without_events("60m");
    host.signal(Signal::HUP);
    until_without_a_failure(&mut gateway, token, "0.1.0", "0.2.0");
}
