// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A redirect service in C++17 on the library, libcarnet. It takes the long way, which shows each step: the flow, the
// record, a socket of its own, the record on it, connect(). (carnet_dial() does all of that.)
//
// It says who goes where (pid, name, destination, how many services have had the flow), carries every connection on as
// it is, and ends cleanly on SIGTERM. With the library installed (`make install`):
//
//	c++ -std=c++17 -O2 -Wall -Wextra -pthread -o service examples/cpp/service.cpp $(pkg-config --cflags --libs carnet)
//	carnet run --through './service {port}' -- curl https://example.org/
//
// docs/c-api.md lists every function.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <list>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include <carnet.h>

namespace {

// What the library gives, owned. Three lines each are all that C++ needs.
struct Free {
	void operator()(carnet_flow_t *flow) const { carnet_flow_free(flow); }
	void operator()(carnet_error_t *error) const { carnet_error_free(error); }
};
using FlowAnswer = std::unique_ptr<carnet_flow_t, Free>;
using Error = std::unique_ptr<carnet_error_t, Free>;

class Socket {
public:
	explicit Socket(int fd = -1) : fd_(fd) {}
	Socket(Socket &&other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
	Socket(const Socket &) = delete;
	Socket &operator=(Socket &&other) noexcept
	{
		std::swap(fd_, other.fd_);
		return *this;
	}
	~Socket()
	{
		if (fd_ >= 0)
			::close(fd_);
	}
	int fd() const { return fd_; }
	explicit operator bool() const { return fd_ >= 0; }

	// Ends the reads of the other direction, without a word to the peer; closing then sends a reset.
	void reset_when_closed() const
	{
		const linger reset{1, 0};
		setsockopt(fd_, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
		::shutdown(fd_, SHUT_RD);
	}

private:
	int fd_;
};

// Calls a function of the library whose last argument is for the error, and throws that.
template <typename Function, typename... Arguments>
void check(Function function, Arguments... arguments)
{
	carnet_error_t *raw = nullptr;
	if (function(arguments..., &raw) != CARNET_OK) {
		const Error error(raw);
		throw std::runtime_error(carnet_error_message(error.get()));
	}
}

// The name is the process's own choice: print nothing of it that a terminal would obey.
std::string printable(std::string name)
{
	std::replace_if(name.begin(), name.end(), [](char c) { return c < '!' || c > '~'; }, '?');
	return name;
}

// Connects to where the client was going, with its record set.
Socket go_on(const Socket &client)
{
	carnet_flow_t *raw = nullptr;
	check(carnet_flow_query, client.fd(), &raw);
	const FlowAnswer flow(raw);
	std::printf("%u %s %s %u\n", carnet_flow_pid(flow.get()), printable(carnet_flow_comm(flow.get())).c_str(),
		    carnet_flow_destination_text(flow.get()), carnet_flow_depth(flow.get()));

	sockaddr_storage destination{};
	std::size_t size = sizeof(destination);
	check(carnet_flow_destination, flow.get(), &destination, &size);
	Socket server(::socket(destination.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
	if (!server)
		throw std::system_error(errno, std::generic_category(), "socket");

	// The record before connect(), or not at all: without it this would look like a new connection of our own.
	std::array<unsigned char, CARNET_RECORDS_MAX> records;
	std::size_t length = records.size();
	check(carnet_records_query, client.fd(), records.data(), &length);
	check(carnet_records_set, server.fd(), records.data(), length);
	if (::connect(server.fd(), reinterpret_cast<sockaddr *>(&destination), static_cast<socklen_t>(size)) != 0)
		throw std::system_error(errno, std::generic_category(), carnet_flow_destination_text(flow.get()));
	return server;
}

// One direction, to its end; the other goes on, for a client may close its half and still wait for the answer.
// It throws nothing, for one half runs while the other's thread has to be waited for.
void copy(const Socket &from, const Socket &to) noexcept
{
	std::array<char, 32768> data;
	for (;;) {
		const ssize_t size = ::recv(from.fd(), data.data(), data.size(), 0);
		if (size == 0) {
			::shutdown(to.fd(), SHUT_WR);
			return;
		}
		ssize_t done = 0;
		while (size > 0 && done < size) {
			const ssize_t sent = ::send(to.fd(), data.data() + done, size - done, MSG_NOSIGNAL);
			if (sent < 0)
				break;
			done += sent;
		}
		if (size < 0 || done < size) {
			from.reset_when_closed();
			to.reset_when_closed();
			return;
		}
	}
}

// One connection, on threads of its own.
class Flow {
public:
	explicit Flow(Socket client) : client_(std::move(client))
	{
		try {
			thread_ = std::thread([this] { serve(); });
		} catch (const std::system_error &) {
			client_.reset_when_closed();
			throw;
		}
	}
	~Flow()
	{
		end();
		thread_.join();
	}
	bool over() const { return over_; }

private:
	void serve()
	{
		try {
			Socket server = go_on(client_);
			{
				const std::lock_guard<std::mutex> guard(lock_);
				server_ = std::move(server);
			}
			if (ending_)
				end();
			std::thread answers([this] { copy(server_, client_); });
			copy(client_, server_);
			answers.join();
		} catch (const std::exception &error) {
			std::fprintf(stderr, "service: connection closed: %s\n", error.what());
			client_.reset_when_closed(); // a plain close would look like an empty answer
		}
		// The peers are told now, and not when somebody looks whether this is over.
		const std::lock_guard<std::mutex> guard(lock_);
		client_ = Socket();
		server_ = Socket();
		over_ = true;
	}

	void end()
	{
		ending_ = true;
		const std::lock_guard<std::mutex> guard(lock_);
		for (const Socket *socket : {&client_, &server_})
			if (*socket)
				::shutdown(socket->fd(), SHUT_RDWR);
	}

	std::mutex lock_; // of what the two sockets are
	Socket client_, server_;
	std::atomic<bool> ending_{false}, over_{false};
	std::thread thread_; // uses the others
};

// Nothing where the host has no IPv6.
Socket listen_on(int family, unsigned short port)
{
	sockaddr_in v4{};
	v4.sin_family = AF_INET;
	v4.sin_port = htons(port);
	v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	sockaddr_in6 v6{};
	v6.sin6_family = AF_INET6;
	v6.sin6_port = htons(port);
	v6.sin6_addr = in6addr_loopback;

	const bool is_v4 = family == AF_INET;
	Socket listener(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
	const int on = 1;
	const auto *address = is_v4 ? reinterpret_cast<sockaddr *>(&v4) : reinterpret_cast<sockaddr *>(&v6);
	const bool listens = listener && setsockopt(listener.fd(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
			     ::bind(listener.fd(), address, is_v4 ? sizeof(v4) : sizeof(v6)) == 0 &&
			     ::listen(listener.fd(), SOMAXCONN) == 0;
	if (listens)
		return listener;
	if (!is_v4 && (errno == EAFNOSUPPORT || errno == EADDRNOTAVAIL))
		return Socket();
	throw std::system_error(errno, std::generic_category(), "cannot listen on port " + std::to_string(port));
}

volatile sig_atomic_t stopping;

void serve(unsigned short port, const sigset_t &while_waiting)
{
	// Both families, for an IPv6-only socket cannot be sent to an IPv4 listener.
	const std::array<Socket, 2> listeners{listen_on(AF_INET, port), listen_on(AF_INET6, port)};
	std::list<Flow> flows;
	while (!stopping) {
		std::array<pollfd, 2> ready{pollfd{listeners[0].fd(), POLLIN, 0}, pollfd{listeners[1].fd(), POLLIN, 0}};
		if (::ppoll(ready.data(), ready.size(), nullptr, &while_waiting) < 0)
			continue; // a signal
		for (const pollfd &listener : ready) {
			if (!(listener.revents & POLLIN))
				continue;
			try {
				Socket client(::accept4(listener.fd, nullptr, nullptr, SOCK_CLOEXEC));
				if (!client)
					throw std::system_error(errno, std::generic_category(), "accept");
				flows.emplace_back(std::move(client));
			} catch (const std::system_error &error) {
				std::fprintf(stderr, "service: %s\n", error.what());
				::poll(nullptr, 0, 100); // out of files or threads until other flows end
			}
		}
		flows.remove_if([](const Flow &flow) { return flow.over(); });
	}
}

} // namespace

int main(int argc, char **argv)
{
	const int port = argc == 2 ? std::atoi(argv[1]) : 0;
	if (port < 1 || port > 65535) {
		std::fprintf(stderr, "usage: service PORT\n");
		return 2;
	}
	std::setvbuf(stdout, nullptr, _IOLBF, 0);

	// Signals come while the main thread waits, and at no other time.
	sigset_t ends, before;
	sigemptyset(&ends);
	sigaddset(&ends, SIGTERM);
	sigaddset(&ends, SIGINT);
	pthread_sigmask(SIG_BLOCK, &ends, &before);
	struct sigaction on_end {};
	on_end.sa_handler = [](int) { stopping = 1; };
	sigaction(SIGTERM, &on_end, nullptr);
	sigaction(SIGINT, &on_end, nullptr);
	try {
		serve(static_cast<unsigned short>(port), before);
	} catch (const std::exception &error) {
		std::fprintf(stderr, "service: %s\n", error.what());
		return 1;
	}
	return 0;
}
