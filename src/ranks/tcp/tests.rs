//! Ranks that are threads of one process.

use super::*;

fn launch(rank: usize, size: usize, port: u16) -> Launch {
    Launch { rank, size, local_rank: 0, address: format!("127.0.0.1:{port}"), by_mpi: false }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Runs `each` as three ranks.
pub fn as_three<T: Send>(each: impl Fn(&Tcp) -> T + Sync) -> Vec<T> {
    as_ranks(3, each)
}

/// Runs `each` as so many ranks.
pub fn as_ranks<T: Send>(size: usize, each: impl Fn(&Tcp) -> T + Sync) -> Vec<T> {
    let port = free_port();
    let run = |rank| each(&Tcp::join(&launch(rank, size, port)).unwrap());
    let run = &run;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..size).map(|rank| scope.spawn(move || run(rank))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn sums_and_words_are_the_same_on_all() {
    let found = as_three(|ranks| {
        let mine = ranks.rank() as f32 + 1.0;
        let (mut narrow, mut wide) = ([mine, 10.0 * mine, 0.1], [f64::from(mine)]);
        ranks.sum(&mut narrow).unwrap();
        ranks.sum_f64(&mut wide).unwrap();
        let ranks: &dyn ProcessGroup = ranks;
        ranks.barrier().unwrap();
        let word = ranks.from_first(|| Ok(format!("from {}", ranks.rank()))).unwrap();
        (narrow, wide, word)
    });
    for found in found {
        assert_eq!(found, ([6.0, 60.0, 0.1 + 0.1 + 0.1], [6.0], "from 0".to_owned()));
    }
}

#[test]
fn what_fails_on_the_first_fails_on_all() {
    let found = as_three(|ranks| {
        let failing = || Err::<(), _>(Error::setting("key", "is wrong", "mend it"));
        (ranks as &dyn ProcessGroup).from_first(failing).unwrap_err().to_string()
    });
    assert!(found.iter().all(|error| error.contains("is wrong")), "{found:?}");
}

/// A machine that is gone closes no connection, and nobody is to wait for it for ever.
#[cfg(target_os = "linux")]
#[test]
fn who_is_silent_is_asked_whether_it_is_there() {
    use rustix::net::sockopt;
    let asked = as_three(|ranks| {
        let times = |socket: &TcpStream| {
            assert!(sockopt::socket_keepalive(socket).unwrap());
            let probes = sockopt::tcp_keepcnt(socket).unwrap() * sockopt::tcp_keepintvl(socket).unwrap();
            sockopt::tcp_keepidle(socket).unwrap() + probes
        };
        ranks.sockets.iter().map(times).collect::<Vec<_>>()
    });
    assert_eq!(asked.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1, 1]);
    assert!(asked.iter().flatten().all(|time| *time == SILENCE), "{asked:?}");
}

#[test]
fn ranks_meet_at_a_name_of_several_addresses() {
    let address = format!("localhost:{}", free_port());
    let of = |rank| Launch { address: address.clone(), ..launch(rank, 2, 0) };
    let join = |rank| Tcp::join(&of(rank)).unwrap().broadcast(&mut vec![1]).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| join(0));
        scope.spawn(|| join(1));
    });
}

#[test]
fn another_program_is_not_taken_for_the_first_rank() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut socket, _) = listener.accept().unwrap();
            socket.read_exact(&mut [0; 24]).unwrap();
            socket.write_all(b"HTTP/1.1 400 Bad Request").unwrap();
        });
        let error = answered(&address, 1, 2).unwrap_err().to_string();
        assert!(error.contains("not the first rank"), "{error}");
        // Nor one of another number of ranks.
        let calls = scope.spawn(|| answered(&address, 1, 3).is_ok());
        assert!(read_handshake(listener.accept().unwrap().0, 2).is_none());
        assert!(!calls.join().unwrap());
    });
}

#[test]
fn one_that_has_gone_is_noticed_without_waiting_for_it() {
    let found = as_three(|ranks| {
        let watch = ranks.watch().unwrap().expect("sockets can be watched");
        watch().unwrap();
        (ranks as &dyn ProcessGroup).barrier().unwrap();
        if ranks.rank() == 2 {
            return String::new();
        }
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Err(error) = watch() {
                return error.to_string();
            }
        }
        panic!("nobody has gone");
    });
    assert!(found[0].contains("rank 2 has stopped"), "{found:?}");
    assert!(found[1].contains("rank 0 has stopped"), "{found:?}");
}

#[test]
fn a_rank_that_leaves_is_named() {
    let found = as_three(|ranks| match ranks.rank() {
        1 => None,
        _ => Some(ranks.sum(&mut [1.0; 1000]).unwrap_err().to_string()),
    });
    assert!(found[0].as_ref().unwrap().contains("rank 1 has stopped"), "{found:?}");
    assert!(found[2].as_ref().unwrap().contains("rank 0 has stopped"), "{found:?}");
}
