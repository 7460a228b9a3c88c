// SPDX-License-Identifier: MIT OR Apache-2.0

// A redirect service in Go, with nothing but the standard library: two of Carnet's socket options are all it needs.
//
// It says who goes where (pid, name, destination, how many services have had the flow) and carries every connection on
// as it is. From the top of the repository:
//
//	go build -o target/go-service examples/go/service.go
//	carnet run --through 'target/go-service {port}' -- curl https://example.org/
//
// The options and the structures are those of crates/carnet-abi/include/carnet_abi.h; docs/languages.md says what is
// special about Go, docs/socket-options.md lists every answer and every error.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

const (
	solCarnet     = 0x4341
	carnetRecords = 1   // get: the record of an accepted connection, opaque bytes; set: on the socket with which we go on
	carnetFlow    = 3   // get: struct carnet_flow
	recordsMax    = 640 // no record is longer
)

// struct carnet_flow up to its chain. The kernel cuts the answer to the size that we ask for.
type flow struct {
	Version, Size uint16
	Depth         uint32
	ID            [2]uint64
	Origin        origin
	Remote        address
}

// struct carnet_origin: the first application's connect().
type origin struct {
	Remote, Local                         address
	Time, StartTime                       uint64
	CgroupID, NetnsCookie                 uint64
	ExeIno                                uint64
	ExeDev, PID, UID, GID, InterfaceIndex uint32
	Family, Protocol                      uint8
	Flags                                 uint16
	Comm                                  [16]byte
}

// struct carnet_addr: IPv4 as ::ffff:a.b.c.d.
type address struct {
	IP    [16]byte
	Scope uint32
	Port  uint16
	_     uint16
}

var noRecord = map[syscall.Errno]string{
	syscall.ENODATA:     "it was not redirected",
	syscall.EIDRM:       "context lost: it was redirected, but its record is missing",
	syscall.EOPNOTSUPP:  "no engine answers here: start the service in a cgroup which the engine covers",
	syscall.ENOPROTOOPT: "no engine answers here: start the service in a cgroup which the engine covers",
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("service: ")
	if len(os.Args) != 2 {
		log.Fatal("usage: service PORT")
	}
	// Both families, for an IPv6-only socket cannot be sent to an IPv4 listener.
	v4, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", os.Args[1]))
	if err != nil {
		log.Fatal(err)
	}
	v6, err := net.Listen("tcp6", net.JoinHostPort("::1", os.Args[1]))
	switch {
	case err == nil:
		go acceptAll(v6)
	case errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.EAFNOSUPPORT):
		log.Print("this host has no IPv6")
	default:
		log.Fatal(err)
	}
	acceptAll(v4)
}

func acceptAll(listener net.Listener) {
	for {
		client, err := listener.Accept()
		if err != nil {
			log.Printf("accept: %v", err)
			time.Sleep(100 * time.Millisecond) // out of files until other flows end
			continue
		}
		go serve(client.(*net.TCPConn))
	}
}

func serve(client *net.TCPConn) {
	defer client.Close()
	server, err := goOn(client)
	if err != nil {
		log.Printf("connection closed: %v", err)
		reset(client) // a plain close would look like an empty answer
		return
	}
	defer server.Close()
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		carry(client, server)
	}()
	carry(server, client)
	<-answered
}

// Connects to where the client was going, with its record set.
func goOn(client *net.TCPConn) (*net.TCPConn, error) {
	var (
		flow    flow
		records [recordsMax]byte
	)
	if _, err := getsockopt(client, carnetFlow, unsafe.Pointer(&flow), unsafe.Sizeof(flow)); err != nil {
		return nil, err
	}
	size, err := getsockopt(client, carnetRecords, unsafe.Pointer(&records), unsafe.Sizeof(records))
	if err != nil {
		return nil, err
	}

	destination := flow.Remote.addrPort()
	fmt.Printf("%d %s %v %d\n", flow.Origin.PID, printable(flow.Origin.Comm[:]), destination, flow.Depth)
	server, err := dial(destination, records[:size])
	if err != nil {
		return nil, err // it names the destination
	}
	return server.(*net.TCPConn), nil
}

// Before connect(), or not at all: without its record this would look like a new connection of our own.
func dial(destination netip.AddrPort, records []byte) (net.Conn, error) {
	dialer := net.Dialer{Control: func(_, _ string, socket syscall.RawConn) error {
		var err error
		if failed := socket.Control(func(fd uintptr) {
			err = syscall.SetsockoptString(int(fd), solCarnet, carnetRecords, string(records))
		}); failed != nil {
			return failed
		}
		return os.NewSyscallError("setsockopt", err)
	}}
	return dialer.Dial("tcp", destination.String())
}

// The answer's size. The descriptor is lent to the function, and stays the connection's.
func getsockopt(client *net.TCPConn, option uintptr, value unsafe.Pointer, size uintptr) (uint32, error) {
	socket, err := client.SyscallConn()
	if err != nil {
		return 0, err
	}
	length := uint32(size)
	var errno syscall.Errno
	if err := socket.Control(func(fd uintptr) {
		_, _, errno = syscall.Syscall6(syscall.SYS_GETSOCKOPT, fd, solCarnet, option,
			uintptr(value), uintptr(unsafe.Pointer(&length)), 0)
	}); err != nil {
		return 0, err
	}
	if reason, known := noRecord[errno]; known {
		return 0, errors.New(reason)
	}
	if errno != 0 {
		return 0, os.NewSyscallError("getsockopt", errno)
	}
	return length, nil
}

func (a address) addrPort() netip.AddrPort {
	ip := netip.AddrFrom16(a.IP).Unmap()
	if a.Scope != 0 {
		ip = ip.WithZone(strconv.Itoa(int(a.Scope)))
	}
	return netip.AddrPortFrom(ip, a.Port)
}

// The name is the process's own choice: print nothing of it that a terminal would obey.
func printable(comm []byte) []byte {
	comm, _, _ = bytes.Cut(comm, []byte{0})
	return bytes.Map(func(r rune) rune {
		if r < '!' || r > '~' {
			return '?'
		}
		return r
	}, comm)
}

// One direction, to its end; the other goes on, for a client may close its half and still wait for the answer.
func carry(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		reset(from)
		reset(to)
		return
	}
	_ = to.CloseWrite() // fails where it has gone; its own direction has seen that
}

// Closes with a reset, and so ends the other direction, too.
func reset(connection *net.TCPConn) {
	_ = connection.SetLinger(0)
	_ = connection.Close()
}
