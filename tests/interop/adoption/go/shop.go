// Command shop is an old application: gorilla/sessions with redistore. It says where it listens on standard output.
//
//	shop REDIS_ADDRESS HASH_KEY BLOCK_KEY SERIALIZER     keys in hexadecimal; "" for no block key; gob or json
package main

import (
	"encoding/gob"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/boj/redistore"
	"github.com/gorilla/sessions"
)

type Profile struct{ Name string }

func key(text string) []byte {
	raw, err := hex.DecodeString(text)
	if err != nil {
		panic(err)
	}
	if len(raw) == 0 {
		return nil
	}
	return raw
}

func main() {
	gob.Register(Profile{})
	gob.Register(map[string]interface{}{})
	gob.Register([]interface{}{})
	gob.Register(time.Time{})
	store, err := redistore.NewRediStore(4, "tcp", os.Args[1], "", key(os.Args[2]), key(os.Args[3]))
	if err != nil {
		panic(err)
	}
	if os.Args[4] == "json" {
		store.SetSerializer(redistore.JSONSerializer{})
	}
	with := func(change func(session *sessions.Session)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			session, err := store.Get(r, "session-name")
			if err == nil {
				change(session)
				err = session.Save(r, w)
			}
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			fmt.Fprint(w, session.Values["username"])
		}
	}
	http.HandleFunc("/login", with(func(session *sessions.Session) {
		session.Values["authenticated"] = true
		session.Values["username"] = "alice"
		session.Values["visits"] = 42
		session.Values["cart"] = []interface{}{"hat", map[string]interface{}{"size": 7}}
		session.AddFlash("Welcome back")
	}))
	http.HandleFunc("/when", with(func(session *sessions.Session) {
		session.Values["seen"] = time.Date(2024, 5, 6, 7, 8, 9, 123456000, time.UTC)
		session.Values["raw"] = []byte{0, 255}
	}))
	http.HandleFunc("/profile", with(func(session *sessions.Session) {
		session.Values["profile"] = Profile{"Alice"}
	}))
	http.HandleFunc("/logout", with(func(session *sessions.Session) { session.Options.MaxAge = -1 }))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(listener.Addr())
	panic(http.Serve(listener, nil))
}
