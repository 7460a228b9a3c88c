use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, Mutex},
    time::Instant,
};

use serde_json::{Value, json};

use super::{Error, Har, Options, Shared, exchange::State, file::File};

#[test]
fn the_file_is_whole_after_each_entry() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flows.har");
    let mut file = File::create(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    for number in 0..3 {
        let har = read(&path);
        assert_eq!(har["log"]["version"], "1.2");
        assert_eq!(har["log"]["creator"]["name"], "carnet");
        assert_eq!(har["log"]["entries"].as_array().unwrap().len(), number);
        file.append(&json!({ "number": number, "text": "x".repeat(100 * number) })).unwrap();
    }
    assert_eq!(read(&path)["log"]["entries"][2]["number"], 2);
}

#[test]
fn a_file_that_is_there_is_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flows.har");
    fs::write(&path, "mine").unwrap();
    let error = Har::create(&path, Options::default(), |_| {}).unwrap_err();
    assert!(matches!(error, Error::Create { .. }));
    assert_eq!(fs::read(&path).unwrap(), b"mine");
}

#[test]
fn a_disk_that_is_full_is_told_of_once() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let teller = Arc::clone(&told);
    // Whatever is written there finds no room.
    let file = File::at(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let har = Har::writing(Path::new("/dev/full"), file, Options::default(), move |error| {
        teller.lock().unwrap().push(error.to_string());
    })
    .unwrap();
    for _ in 0..3 {
        assert_eq!(har.shared.room_for(10), 10);
        har.shared.write(State::default().entry(Instant::now()), 10);
    }
    let shared: Arc<Shared> = Arc::clone(&har.shared);
    drop(har);
    assert_eq!(*told.lock().unwrap(), ["cannot write to /dev/full, and goes on without it"]);
    assert_eq!(shared.waiting.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[test]
fn there_is_room_for_so_much_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { most_waiting: 100, ..Options::default() };
    let har = Har::create(&folder.path().join("flows.har"), options, |error| panic!("{error}")).unwrap();
    assert_eq!((har.shared.room_for(60), har.shared.room_for(60), har.shared.room_for(1)), (60, 40, 0));
    har.shared.give_back(100);
    assert_eq!(har.shared.room_for(60), 60);
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}
