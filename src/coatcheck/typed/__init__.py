"""Sessions with types: an application declares what is in its session, and reads and writes it as an object.

@dataclass
class ShopSession:
theme: Literal["light", "dark"] = "light"
cart: list[Item] = field(default_factory=list)

shop = SessionSchema(ShopSession)
data = shop.of(request.session)
data.cart.append(Item("book"))  # stored with the session: there is nothing to call
"""

from coatcheck.errors import UnfitValue
from coatcheck.typed.schema import SessionSchema, WhenUnfit
from coatcheck.typed.view import Migrate

__all__ = ["Migrate", "SessionSchema", "UnfitValue", "WhenUnfit"]
