// SPDX-License-Identifier: MIT OR Apache-2.0
import com.sun.jna.LastErrorException;
import com.sun.jna.Native;
import com.sun.jna.Pointer;
import java.io.IOException;
import java.lang.reflect.Method;
import java.net.Inet4Address;
import java.net.Inet6Address;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.NetworkInterface;
import java.net.StandardProtocolFamily;
import java.net.StandardSocketOptions;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Map;

/**
 * A redirect service in Java: two of Carnet's socket options are all it needs. Java can ask only for options which it
 * knows, so JNA (Debian's libjna-java) makes the system calls.
 *
 * <p>It says who goes where (pid, name, destination, how many services have had the flow) and carries every connection
 * on as it is. From the top of the repository:
 *
 * <pre>
 * javac -Xlint:all -Werror -cp /usr/share/java/jna.jar -d target/java examples/java/Service.java
 * carnet run --through 'java @examples/java/options Service {port}' -- curl https://example.org/
 * </pre>
 *
 * <p>The options and the structure are those of crates/carnet-abi/include/carnet_abi.h; docs/languages.md says what is
 * special about Java, docs/socket-options.md lists every answer and every error.
 */
final class Service {
    private static final int SOL_CARNET = 0x4341;
    // Get: the record of an accepted connection, opaque bytes. Set: on the socket with which we go on.
    private static final int CARNET_RECORDS = 1;
    private static final int CARNET_FLOW = 3; // get: struct carnet_flow
    private static final int RECORDS_MAX = 640; // no record is longer
    private static final int FLOW_MAX = 1024; // more than the structure has today, for it grows at its end
    private static final int AF_INET6 = 10;

    // Where the fields of struct carnet_flow are.
    private static final int DEPTH = 4;
    private static final int PID = 116;
    private static final int COMM = 136;
    private static final int REMOTE = 152;
    // And those of struct carnet_addr, behind 16 bytes of IPv6, IPv4 as ::ffff:a.b.c.d.
    private static final int SCOPE = 16;
    private static final int PORT = 20;

    private static final Map<Integer, String> NO_RECORD =
            Map.of(
                    61, "it was not redirected", // ENODATA
                    43, "context lost: it was redirected, but its record is missing", // EIDRM
                    95, "no engine answers here: start the service in a cgroup which the engine covers", // EOPNOTSUPP
                    92, "no engine answers here: start the service in a cgroup which the engine covers"); // ENOPROTOOPT

    // Three functions of the C library, with the errno as an exception.
    static {
        Native.register("c");
    }

    static native int getsockopt(int fd, int level, int option, byte[] value, int[] size) throws LastErrorException;

    static native int setsockopt(int fd, int level, int option, byte[] value, int size) throws LastErrorException;

    static native Pointer inet_ntop(int family, byte[] address, byte[] text, int size) throws LastErrorException;

    private Service() {}

    public static void main(String[] arguments) throws IOException {
        if (arguments.length != 1) {
            System.err.println("usage: Service PORT");
            System.exit(2);
        }
        int port = Integer.parseInt(arguments[0]);
        InetAddress loopback = InetAddress.getByName("::1");
        boolean hasIPv6 = NetworkInterface.getByInetAddress(loopback) != null;
        // Both families, for an IPv6-only socket cannot be sent to an IPv4 listener. One right after the other: who waits
        // for the service may take the first for all there is.
        ServerSocketChannel v4 = listen(InetAddress.getByName("127.0.0.1"), port);
        if (hasIPv6) {
            ServerSocketChannel v6 = listen(loopback, port);
            new Thread(() -> acceptAll(v6)).start();
        } else {
            log("this host has no IPv6");
        }
        acceptAll(v4);
    }

    // A channel, for a ServerSocket and what it accepts keep their descriptors to themselves.
    private static ServerSocketChannel listen(InetAddress ip, int port) throws IOException {
        return ServerSocketChannel.open(family(ip)).bind(new InetSocketAddress(ip, port), 1024);
    }

    private static StandardProtocolFamily family(InetAddress ip) {
        return ip instanceof Inet4Address ? StandardProtocolFamily.INET : StandardProtocolFamily.INET6;
    }

    private static void acceptAll(ServerSocketChannel listener) {
        while (true) {
            try {
                SocketChannel client = listener.accept();
                start(() -> serve(client), client);
            } catch (IOException | OutOfMemoryError error) {
                log("accept: " + error.getMessage());
                pause(); // out of files or threads until other flows end
            }
        }
    }

    /** In a thread of its own. Where none can be had nobody would ever answer the client, so it is reset. */
    private static Thread start(Runnable work, SocketChannel client) {
        try {
            Thread thread = new Thread(work);
            thread.start();
            return thread;
        } catch (OutOfMemoryError error) {
            reset(client);
            throw error;
        }
    }

    private static void serve(SocketChannel client) {
        SocketChannel server;
        try {
            server = goOn(client);
        } catch (IOException | RuntimeException | Error error) {
            log("connection closed: " + (error instanceof IOException ? error.getMessage() : error));
            reset(client); // a plain close would look like an empty answer
            return;
        }
        try (client;
                server) {
            Thread answers = start(() -> copy(server, client), client);
            copy(client, server);
            answers.join();
        } catch (IOException | InterruptedException | OutOfMemoryError error) {
            log("close: " + error.getMessage());
        }
    }

    /** Connects to where the client was going, with its record set. */
    private static SocketChannel goOn(SocketChannel client) throws IOException {
        ByteBuffer flow = ByteBuffer.wrap(query(client, CARNET_FLOW, FLOW_MAX)).order(ByteOrder.nativeOrder());
        byte[] records = query(client, CARNET_RECORDS, RECORDS_MAX);

        InetSocketAddress destination = address(flow.slice(REMOTE, PORT + 4).order(flow.order()));
        // The name is the process's own choice: print nothing of it that a terminal would obey.
        String comm = new String(flow.array(), COMM, 16, StandardCharsets.ISO_8859_1);
        comm = comm.split("\0", 2)[0].replaceAll("[^!-~]", "?");
        System.out.println(flow.getInt(PID) + " " + comm + " " + shown(destination) + " " + flow.getInt(DEPTH));

        SocketChannel server = SocketChannel.open(family(destination.getAddress()));
        try {
            // Before connect(), or not at all: without its record this would look like a new connection of our own.
            setsockopt(descriptor(server), SOL_CARNET, CARNET_RECORDS, records, records.length);
            server.connect(destination);
            return server;
        } catch (IOException | LastErrorException error) {
            server.close();
            throw new IOException(shown(destination) + ": " + error.getMessage(), error);
        }
    }

    private static byte[] query(SocketChannel client, int option, int most) throws IOException {
        byte[] value = new byte[most];
        int[] size = {most};
        try {
            getsockopt(descriptor(client), SOL_CARNET, option, value, size);
        } catch (LastErrorException error) {
            throw new IOException(NO_RECORD.getOrDefault(error.getErrorCode(), error.getMessage()), error);
        }
        return Arrays.copyOf(value, size[0]);
    }

    /** The channel's own: do not close it, and do not use it once the channel may be closed. */
    private static int descriptor(SocketChannel channel) throws IOException {
        try {
            Method descriptor = Class.forName("sun.nio.ch.SelChImpl").getMethod("getFDVal");
            return (int) descriptor.invoke(channel);
        } catch (ReflectiveOperationException error) {
            throw new IOException("start java with --add-exports java.base/sun.nio.ch=ALL-UNNAMED: " + error, error);
        }
    }

    private static InetSocketAddress address(ByteBuffer address) throws IOException {
        byte[] bytes = new byte[SCOPE];
        address.get(0, bytes);
        InetAddress ip = InetAddress.getByAddress(bytes); // an Inet4Address, where it is ::ffff:a.b.c.d
        if (ip instanceof Inet6Address && address.getInt(SCOPE) != 0) {
            ip = Inet6Address.getByAddress(null, bytes, address.getInt(SCOPE));
        }
        return new InetSocketAddress(ip, Short.toUnsignedInt(address.getShort(PORT)));
    }

    private static String shown(InetSocketAddress address) {
        InetAddress ip = address.getAddress();
        if (ip instanceof Inet4Address) {
            return ip.getHostAddress() + ":" + address.getPort();
        }
        byte[] text = new byte[46];
        inet_ntop(AF_INET6, ip.getAddress(), text, text.length); // Java would not shorten it
        return "[" + Native.toString(text) + "]:" + address.getPort();
    }

    /** One direction, to its end; the other goes on, for a client may close its half and still wait for the answer. */
    private static void copy(SocketChannel from, SocketChannel to) {
        try {
            ByteBuffer data = ByteBuffer.allocate(65536);
            while (from.read(data) >= 0) {
                data.flip();
                while (data.hasRemaining()) {
                    to.write(data);
                }
                data.clear();
            }
            to.shutdownOutput();
        } catch (IOException | OutOfMemoryError error) {
            reset(from);
            reset(to);
        }
    }

    /** Closes with a reset, and so ends the other direction, too. */
    private static void reset(SocketChannel channel) {
        try {
            channel.setOption(StandardSocketOptions.SO_LINGER, 0);
            channel.close();
        } catch (IOException error) {
            // Closed already.
        }
    }

    private static void pause() {
        try {
            Thread.sleep(100);
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
        }
    }

    private static void log(String message) {
        System.err.println("Service: " + message);
    }
}
