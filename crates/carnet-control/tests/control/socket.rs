//! The socket's file.

use std::{
    fs::Permissions,
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    sync::Barrier,
};

use carnet_control::{BindError, ControlSocket};
use tempfile::TempDir;

#[tokio::test]
async fn everybody_may_connect_and_the_file_goes_with_the_daemon() {
    let folder = folder(0o755);
    let path = folder.path().join("control.sock");
    let socket = ControlSocket::bind(&path).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o666);
    assert_eq!(socket.path(), Some(path.as_path()));
    drop(socket);
    assert!(!path.exists());
}

#[tokio::test]
async fn the_socket_of_a_dead_daemon_is_replaced() {
    let folder = folder(0o755);
    let path = folder.path().join("control.sock");
    drop(UnixListener::bind(&path).unwrap());
    // One that was killed while it made its socket.
    drop(UnixListener::bind(folder.path().join("control.sock.new")).unwrap());
    let _socket = ControlSocket::bind(&path).unwrap();
    UnixStream::connect(&path).unwrap();
}

#[tokio::test]
async fn the_socket_of_a_live_daemon_is_left_alone() {
    let folder = folder(0o755);
    let path = folder.path().join("control.sock");
    let first = ControlSocket::bind(&path).unwrap();
    assert!(matches!(ControlSocket::bind(&path), Err(BindError::Served { .. })));
    UnixStream::connect(&path).unwrap();
    drop(first);

    // Not one of ours, so without a lock.
    let _other = UnixListener::bind(&path).unwrap();
    let error = ControlSocket::bind(&path).unwrap_err();
    assert!(matches!(error, BindError::Served { .. }), "{error}");
}

#[test]
fn of_many_that_begin_at_once_one_listens() {
    let folder = folder(0o755);
    let path = folder.path().join("control.sock");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for _ in 0..100 {
        // The last one was killed.
        drop(UnixListener::bind(&path).unwrap());
        let start = Barrier::new(4);
        let bound: Vec<_> = std::thread::scope(|scope| {
            let begin = || {
                let _context = runtime.enter();
                start.wait();
                ControlSocket::bind(&path)
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(begin)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(bound.iter().filter(|bound| bound.is_ok()).count(), 1);
        let errors: Vec<_> = bound.iter().flat_map(|bound| bound.as_ref().err()).collect();
        assert!(errors.iter().all(|error| matches!(error, BindError::Served { .. })), "{errors:?}");
        UnixStream::connect(&path).unwrap();
    }
}

#[tokio::test]
async fn what_is_no_socket_is_not_replaced() {
    let folder = folder(0o755);
    let path = folder.path().join("control.sock");
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(ControlSocket::bind(&path), Err(BindError::Occupied { .. })));
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/nowhere", &path).unwrap();
    assert!(matches!(ControlSocket::bind(&path), Err(BindError::Occupied { .. })));
}

#[tokio::test]
async fn a_folder_that_others_write_to_is_refused() {
    for mode in [0o777, 0o1777, 0o775, 0o757] {
        let folder = folder(mode);
        let error = ControlSocket::bind(folder.path().join("control.sock")).unwrap_err();
        assert!(matches!(error, BindError::Exposed { .. }), "{mode:o}: {error}");
        assert!(error.to_string().contains("chmod go-w"), "{error}");
    }
}

#[tokio::test]
async fn a_folder_below_one_that_others_write_to_is_refused() {
    let above = folder(0o755);
    let between = above.path().join("between");
    let below = between.join("run");
    std::fs::create_dir_all(&below).unwrap();
    for (mode, is_safe) in [(0o755, true), (0o777, false), (0o775, false), (0o1777, true)] {
        std::fs::set_permissions(&between, Permissions::from_mode(mode)).unwrap();
        let bound = ControlSocket::bind(below.join("control.sock"));
        assert_eq!(bound.is_ok(), is_safe, "{mode:o}: {bound:?}");
        if let Err(error) = bound {
            assert!(matches!(&error, BindError::Exposed { folder, .. } if *folder == between), "{error}");
        }
    }
}

#[tokio::test]
async fn a_link_is_followed_to_a_folder_of_ours_alone() {
    let above = folder(0o755);
    for (name, mode) in [("good", 0o755), ("bad", 0o777)] {
        std::fs::create_dir(above.path().join(name)).unwrap();
        std::fs::set_permissions(above.path().join(name), Permissions::from_mode(mode)).unwrap();
        std::fs::create_dir(above.path().join(name).join("run")).unwrap();
    }
    let link = |name: &str, target: &str| std::os::unix::fs::symlink(target, above.path().join(name)).unwrap();
    link("to-good", "good/run/../run");
    link("to-bad", "to-good/../../bad/run");
    link("round", "round");
    let bind = |name: &str| ControlSocket::bind(above.path().join(name).join("control.sock"));
    drop(bind("to-good").unwrap());
    let error = bind("to-bad").unwrap_err();
    assert!(matches!(&error, BindError::Exposed { folder, .. } if folder.ends_with("bad")), "{error}");
    assert!(matches!(bind("round").unwrap_err(), BindError::Folder { .. }));
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_told() {
    let folder = folder(0o755);
    let error = ControlSocket::bind(folder.path().join("run/control.sock")).unwrap_err();
    assert!(matches!(error, BindError::Folder { .. }));
    let error = ControlSocket::bind(folder.path().join("x".repeat(200))).unwrap_err();
    assert!(matches!(error, BindError::Failed { .. }), "{error}");
}

#[tokio::test]
async fn the_file_of_a_successor_stays() {
    let folder = folder(0o755);
    let path = folder.path().join("control.sock");
    let first = ControlSocket::bind(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let _second = UnixListener::bind(&path).unwrap();
    drop(first);
    assert!(path.exists());
}

fn folder(mode: u32) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
    folder
}
