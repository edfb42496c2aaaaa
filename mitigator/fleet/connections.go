package fleet

import (
	"crypto/tls"
	"sync"
)

// connections knows the open connections of each agent. The zero value is
// ready.
type connections struct {
	mu      sync.Mutex
	byConn  map[*tls.Conn]string
	byAgent map[string][]*tls.Conn
}

func (c *connections) known(conn *tls.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.byConn[conn]
	return ok
}

func (c *connections) add(agentID string, conn *tls.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byConn == nil {
		c.byConn = make(map[*tls.Conn]string)
		c.byAgent = make(map[string][]*tls.Conn)
	}
	if _, ok := c.byConn[conn]; ok {
		return
	}
	c.byConn[conn] = agentID
	c.byAgent[agentID] = append(c.byAgent[agentID], conn)
}

func (c *connections) remove(conn *tls.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id, ok := c.byConn[conn]
	if !ok {
		return
	}
	delete(c.byConn, conn)
	left := c.byAgent[id][:0]
	for _, other := range c.byAgent[id] {
		if other != conn {
			left = append(left, other)
		}
	}
	if len(left) == 0 {
		delete(c.byAgent, id)
		return
	}
	c.byAgent[id] = left
}

// close closes the agent's connections and returns how many there were. It goes
// below TLS, whose close would wait for a peer that does not read.
func (c *connections) close(agentID string) int {
	c.mu.Lock()
	conns := append([]*tls.Conn(nil), c.byAgent[agentID]...)
	c.mu.Unlock()
	for _, conn := range conns {
		// The only error is that it is closed already.
		_ = conn.NetConn().Close()
	}
	return len(conns)
}
