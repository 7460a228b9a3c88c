// A service that knows SO_ORIGINAL_DST only, and listens for MPTCP, as net.Listen does by itself since Go 1.24.
//
// usage: go-service PORT
package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strconv"
	"syscall"
	"unsafe"
)

const (
	protocolMPTCP       = 262 // IPPROTO_MPTCP
	optionOriginalDst   = 80  // SO_ORIGINAL_DST, IP6T_SO_ORIGINAL_DST
	lengthOfSockaddrIn6 = 28
)

func main() {
	log.SetFlags(0)
	port, err := strconv.Atoi(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	v4 := listen(syscall.AF_INET, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
	v6 := listen(syscall.AF_INET6, &syscall.SockaddrInet6{Port: port, Addr: [16]byte{15: 1}})
	go serve(v6)
	serve(v4)
}

func listen(family int, at syscall.Sockaddr) net.Listener {
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, protocolMPTCP)
	if err == nil && family == syscall.AF_INET6 {
		err = syscall.SetsockoptInt(fd, syscall.IPPROTO_IPV6, syscall.IPV6_V6ONLY, 1)
	}
	if err == nil {
		err = syscall.Bind(fd, at)
	}
	if err == nil {
		err = syscall.Listen(fd, 128)
	}
	if err != nil {
		log.Fatalf("listen: %v", err)
	}
	file := os.NewFile(uintptr(fd), "listener")
	defer file.Close()
	listener, err := net.FileListener(file)
	if err != nil {
		log.Fatalf("listen: %v", err)
	}
	return listener
}

func serve(listener net.Listener) {
	for {
		client, err := listener.Accept()
		if err != nil {
			log.Fatalf("accept: %v", err)
		}
		go func() {
			if err := relay(client.(*net.TCPConn)); err != nil {
				log.Printf("relay: %v", err)
			}
		}()
	}
}

func relay(client *net.TCPConn) error {
	defer client.Close()
	destination, err := originalDestination(client)
	if err != nil {
		return err
	}
	connection, err := net.Dial("tcp", destination)
	if err != nil {
		_ = client.SetLinger(0)
		return err
	}
	server := connection.(*net.TCPConn)
	defer server.Close()
	done := make(chan struct{})
	go func() {
		_, _ = io.Copy(server, client)
		_ = server.CloseWrite()
		close(done)
	}()
	_, _ = io.Copy(client, server)
	_ = client.CloseWrite()
	<-done
	return nil
}

func originalDestination(client *net.TCPConn) (destination string, err error) {
	raw, err := client.SyscallConn()
	if err != nil {
		return "", err
	}
	level := syscall.SOL_IP
	if client.LocalAddr().(*net.TCPAddr).IP.To4() == nil {
		level = syscall.SOL_IPV6
	}
	var address [lengthOfSockaddrIn6]byte
	length := uint32(len(address))
	var errno syscall.Errno
	err = raw.Control(func(fd uintptr) {
		_, _, errno = syscall.Syscall6(syscall.SYS_GETSOCKOPT, fd, uintptr(level), optionOriginalDst,
			uintptr(unsafe.Pointer(&address)), uintptr(unsafe.Pointer(&length)), 0)
	})
	if err != nil {
		return "", err
	}
	if errno != 0 {
		return "", fmt.Errorf("SO_ORIGINAL_DST: %w", errno)
	}
	port := int(binary.BigEndian.Uint16(address[2:]))
	ip := net.IP(address[4:8])
	if level == syscall.SOL_IPV6 {
		ip = net.IP(address[8:24])
	}
	return net.JoinHostPort(ip.String(), strconv.Itoa(port)), nil
}
