// Command site is a small site of the usual kind: gorilla/sessions and redistore behind net/http. It takes a Config as
// JSON in its only argument, prints the port that it listens on, and serves until it is killed.
package main

import (
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/boj/redistore"
	"github.com/gorilla/sessions"
)

type Config struct {
	Redis      string
	Keys       []string // hex
	Name       string
	KeyPrefix  string
	MaxAge     int
	Serializer string
	Client     bool // CookieStore in place of redistore
}

// Profile is what applications keep, apart from what Go knows by itself.
type Profile struct {
	Name  string
	Level int8
}

type site struct {
	store  sessions.Store
	name   string
	loaded chan bool // a slow request has read its session
	goOn   chan bool // and may save it
}

func main() {
	gob.Register(Profile{})
	gob.Register(time.Time{})
	gob.Register(time.Duration(0))
	gob.Register(map[string]interface{}{})
	var config Config
	if err := json.Unmarshal([]byte(os.Args[1]), &config); err != nil {
		panic(err)
	}
	served := site{newStore(config), config.Name, make(chan bool), make(chan bool)}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	panic(http.Serve(listener, served))
}

func newStore(config Config) sessions.Store {
	var keys [][]byte
	for _, text := range config.Keys {
		key, err := hex.DecodeString(text)
		if err != nil {
			panic(err)
		}
		keys = append(keys, key)
	}
	if config.Client {
		return sessions.NewCookieStore(keys...)
	}
	store, err := redistore.NewRediStore(10, "tcp", config.Redis, "", keys...)
	if err != nil {
		panic(err)
	}
	store.SetMaxAge(config.MaxAge)
	store.SetKeyPrefix(config.KeyPrefix)
	store.Options.HttpOnly = true
	if config.Serializer == "json" {
		store.SetSerializer(redistore.JSONSerializer{})
	}
	return store
}

func (s site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path { // these are for the tests, and no pages
	case "/wait-until-loaded":
		<-s.loaded
		return
	case "/go-on":
		s.goOn <- true
		return
	}
	session, err := s.store.Get(r, s.name)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	flashes, saves := s.act(session, r)
	if saves {
		if err := session.Save(r, w); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	values := map[string]string{}
	for key, value := range session.Values {
		name, isText := key.(string)
		if !isText {
			name = fmt.Sprintf("%T(%v)", key, key)
		}
		values[name] = fmt.Sprintf("%T %v", value, value)
	}
	answer := map[string]interface{}{"is_new": session.IsNew, "id": session.ID, "values": values, "flashes": flashes}
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		panic(err)
	}
}

// act does what a page does with its session. It tells whether the page saves it.
func (s site) act(session *sessions.Session, r *http.Request) ([]interface{}, bool) {
	query := r.URL.Query()
	switch r.URL.Path {
	case "/login":
		session.Values["authenticated"] = true
		session.Values["username"] = query.Get("user")
		session.Values["visits"] = 0
	case "/visit":
		switch visits := session.Values["visits"].(type) {
		case int:
			session.Values["visits"] = visits + 1
		case float64: // from JSON
			session.Values["visits"] = visits + 1
		}
	case "/types":
		session.Values["user_id"] = int64(5)
		session.Values["roles"] = []string{"admin"}
		session.Values["profile"] = Profile{"Alice", -5}
		session.Values["pause"] = 90 * time.Second
		session.Values["since"] = time.Date(2024, 5, 6, 7, 8, 9, 123456789, time.UTC)
		session.Values["odd"] = "a\xff\xfeb"
		session.Values["nested"] = map[string]interface{}{"n": int64(7), "odd": "\xff"}
		session.Values[42] = 43
		session.Values[int64(8)] = true
	case "/set":
		session.Values[query.Get("key")] = query.Get("value")
	case "/slow":
		s.loaded <- true
		<-s.goOn
		session.Values["slow"] = "went on"
	case "/flash":
		session.AddFlash(query.Get("message"), keys(query.Get("key"))...)
	case "/flashes":
		return session.Flashes(keys(query.Get("key"))...), true
	case "/renew":
		session.ID = ""
	case "/logout":
		session.Options.MaxAge, _ = strconv.Atoi(query.Get("max-age"))
	default:
		return nil, false
	}
	return nil, true
}

func keys(key string) []string {
	if key == "" {
		return nil
	}
	return []string{key}
}
